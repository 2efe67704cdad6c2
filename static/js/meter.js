// @ts-check
/** How loud the microphone is, also while it is muted: a copy of the track is listened to. */

const LOOK_MS = 100;
/** What counts as silence; speech at arm's length lies 20 to 40 dB above it. */
const FLOOR_DB = -60;

export class Meter {
	/** @type {AudioContext | null} */
	#context = null;
	/** @type {MediaStreamTrack | null} */
	#copy = null;
	/** @type {MediaStreamTrack | null} */
	#track = null;
	/** @type {ReturnType<typeof setInterval> | undefined} */
	#timer = undefined;
	#onLevel;

	/** @param {(level: number) => void} onLevel 0 for silence to 1 for as loud as can be */
	constructor(onLevel) {
		this.#onLevel = onLevel;
	}

	/** @param {MediaStreamTrack | null} track null stops and lets go of everything */
	watch(track) {
		if (track === this.#track) return;
		this.#stop();
		this.#track = track;
		if (!track || typeof AudioContext === 'undefined') return;
		this.#context = new AudioContext();
		this.#copy = track.clone();
		this.#copy.enabled = true;
		const analyser = new AnalyserNode(this.#context, { fftSize: 1024 });
		this.#context.createMediaStreamSource(new MediaStream([this.#copy])).connect(analyser);
		const samples = new Float32Array(analyser.fftSize);
		this.#timer = setInterval(() => {
			analyser.getFloatTimeDomainData(samples);
			let sum = 0;
			for (const sample of samples) sum += sample * sample;
			const db = 10 * Math.log10(sum / samples.length + 1e-12);
			this.#onLevel(Math.min(1, Math.max(0, 1 - db / FLOOR_DB)));
		}, LOOK_MS);
	}

	#stop() {
		clearInterval(this.#timer);
		this.#copy?.stop();
		void this.#context?.close();
		this.#context = null;
		this.#copy = null;
	}
}
