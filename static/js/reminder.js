// @ts-check
/** Tells those who talk while they are muted; loaded when somebody is. */

import { Meter } from './meter.js';

/** Louder than this for some looks in a row is somebody who talks. */
const VOICE = 0.45;
const VOICE_LOOKS = 5;
const REMIND_MS = 20_000;

export class Reminder {
	#loud = 0;
	#remindedAt = -Infinity;
	#meter;

	/** @param {() => void} remind */
	constructor(remind) {
		this.#meter = new Meter((level) => {
			this.#loud = level > VOICE ? this.#loud + 1 : 0;
			if (this.#loud < VOICE_LOOKS || performance.now() - this.#remindedAt < REMIND_MS) return;
			this.#remindedAt = performance.now();
			remind();
		});
	}

	/** @param {MediaStreamTrack | null} track the muted microphone; null while it is not muted */
	watch(track) {
		this.#meter.watch(track);
	}
}
