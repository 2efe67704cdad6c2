// @ts-check
/** Whether a connection still carries anything: seen some seconds before the browser says so. */

const LOOK_MS = 300;
/** Reports and pictures come every second at least. */
const SILENT_MS = 1400;
/** After a sleep or in another network something has to come so soon. */
const PROOF_MS = 700;
/** A server that answers again also sends again, so soon. */
const GRACE_MS = 200;

export class PathWatch {
	#heardMs = 0;
	#lookedMs = 0;
	#bytes = NaN;
	/** @type {ReturnType<typeof setInterval> | undefined} */
	#timer = undefined;

	/**
	 * Watches this connection, and no other any more.
	 *
	 * A server that stands still for a moment is silent too. It must not find everybody at its door
	 * when it goes on: so it is asked first, and who hears it again on the old path stays there.
	 *
	 * @param {RTCPeerConnection} pc
	 * @param {() => Promise<boolean>} ask whether the server answers at all, when it does
	 * @param {() => void} lost called once
	 */
	follow(pc, ask, lost) {
		this.stop();
		this.#heardMs = this.#lookedMs = Date.now();
		let asking = false;
		const timer = setInterval(async () => {
			const slept = Date.now() - this.#lookedMs > SILENT_MS;
			this.#lookedMs = Date.now();
			const bytes = await received(pc).catch(() => NaN);
			if (timer !== this.#timer) return;
			if (slept) this.doubt();
			else if (bytes !== this.#bytes) this.#heardMs = Date.now();
			this.#bytes = bytes;
			if (asking || Date.now() - this.#heardMs < SILENT_MS) return;
			asking = true;
			const silent = bytes;
			if (await ask()) await new Promise((resolve) => setTimeout(resolve, GRACE_MS));
			const now = await received(pc).catch(() => NaN);
			asking = false;
			if (timer !== this.#timer) return;
			if (now !== silent) {
				this.#heardMs = Date.now();
				return;
			}
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
