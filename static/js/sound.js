// @ts-check
/** The mixed sound of the call, and the button for browsers that want a gesture first. */

import { readStore, writeStore } from './store.js';

const KEY = 'calliope.speaker';

export class Sound {
	#audio;
	#button;
	#unlock = () => this.start();

	/**
	 * @param {HTMLAudioElement} audio
	 * @param {HTMLButtonElement} button
	 */
	constructor(audio, button) {
		this.#audio = audio;
		this.#button = button;
		button.addEventListener('click', this.#unlock);
		const chosen = readStore('localStorage', KEY);
		if (chosen) void this.setSpeaker(chosen);
	}

	/** Not every browser lets a page choose (Safari on phones does not). */
	get canChoose() {
		return 'setSinkId' in this.#audio;
	}

	get speaker() {
		return readStore('localStorage', KEY) ?? '';
	}

	/** @param {string} id '' for the system's own choice */
	async setSpeaker(id) {
		try {
			await this.#audio.setSinkId?.(id);
			writeStore('localStorage', KEY, id || null);
		} catch {
			// Unplugged meanwhile: the sound stays where it is.
		}
	}

	/** @param {MediaStreamTrack | null} track */
	play(track) {
		this.#audio.srcObject = track && new MediaStream([track]);
		if (track) this.start();
		else this.#ask(false);
	}

	start() {
		if (!this.#audio.srcObject) return;
		this.#audio.play().then(
			() => this.#ask(false),
			(error) => {
				// Anything else (a new track came meanwhile) mends itself.
				if (error instanceof DOMException && error.name === 'NotAllowedError') this.#ask(true);
			},
		);
	}

	/** @param {boolean} needed */
	#ask(needed) {
		this.#button.hidden = !needed;
		if (needed) document.addEventListener('pointerdown', this.#unlock);
		else document.removeEventListener('pointerdown', this.#unlock);
	}
}
