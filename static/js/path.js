// @ts-check
/** Whether a connection still carries anything: seen some seconds before the browser says so. */

const LOOK_MS = 300;
/** Reports and pictures come every second at least. */
const SILENT_MS = 1600;
/** After a sleep or in another network something has to come so soon. */
const PROOF_MS = 900;

export class PathWatch {
	#heardMs = 0;
	#lookedMs = 0;
	#bytes = NaN;
	/** @type {ReturnType<typeof setInterval> | undefined} */
	#timer = undefined;

	/**
	 * Watches this connection, and no other any more.
	 *
	 * @param {RTCPeerConnection} pc
	 * @param {() => void} lost called once
	 */
	follow(pc, lost) {
		this.stop();
		this.#heardMs = this.#lookedMs = Date.now();
		const timer = setInterval(async () => {
			const slept = Date.now() - this.#lookedMs > SILENT_MS;
			this.#lookedMs = Date.now();
			const bytes = await received(pc).catch(() => NaN);
			if (timer !== this.#timer) return;
			if (slept) this.doubt();
			else if (bytes !== this.#bytes) this.#heardMs = Date.now();
			this.#bytes = bytes;
			if (Date.now() - this.#heardMs < SILENT_MS) return;
			this.stop();
			lost();
		}, LOOK_MS);
		this.#timer = timer;
	}

	/** What was heard until now proves nothing any more. */
	doubt() {
		this.#heardMs = Date.now() - SILENT_MS + PROOF_MS;
	}

	stop() {
		clearInterval(this.#timer);
		this.#timer = undefined;
	}
}

/**
 * @param {RTCPeerConnection} pc
 * @returns {Promise<number>} NaN, which equals nothing, where the browser does not tell
 */
async function received(pc) {
	let bytes = NaN;
	for (const entry of (await pc.getStats()).values()) {
		if (entry.type === 'candidate-pair') bytes = (bytes || 0) + entry.bytesReceived;
	}
	return bytes;
}
