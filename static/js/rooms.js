// @ts-check
/** Room names: made, read from what a person typed, and the seat secret kept for this tab. */

import { readStore, writeStore } from './store.js';
import { t } from './text.js';

const ROOM = /^[a-z0-9_-]{1,64}$/;
const RESERVED = new Set(['api', 'static', 'healthz', 'metrics']);
const CONSONANTS = 'bdfghklmnprstvwz';
const VOWELS = 'aeiu';

/** A new room name: 12 syllables of 6 random bits each (72 bits), easy to read aloud. */
export function makeRoomName() {
	const bytes = crypto.getRandomValues(new Uint8Array(12));
	const syllables = [...bytes].map((byte) => CONSONANTS[byte & 15] + VOWELS[(byte >> 4) & 3]);
	return [0, 3, 6, 9].map((i) => syllables.slice(i, i + 3).join('')).join('-');
}

/**
 * The room a person means by a name or a pasted link; null when it cannot be one.
 *
 * @param {string} typed
 */
export function readRoomName(typed) {
	let name = typed.trim();
	const link = /^(?:https?:\/\/)?[^/\s]+\/([^/?#\s]+)/i.exec(name);
	if (link) name = link[1];
	name = name.toLowerCase().replace(/\s+/g, '-');
	return ROOM.test(name) && !RESERVED.has(name) ? name : null;
}

/** The link to this room, as one passes it on. */
export function roomLink() {
	return location.href.split(/[?#]/)[0];
}

/** Copies that link. @returns {Promise<string>} what to tell the person */
export async function copyLink() {
	try {
		await navigator.clipboard.writeText(roomLink());
		return t('call.copied');
	} catch {
		// No clipboard outside https, or refused: the link is shown to be copied by hand.
		return t('call.copy_by_hand', { link: roomLink() });
	}
}

/**
 * The seat secret of this tab: with it a page takes its own seat again after a loss or a crash.
 * A duplicated tab gets a copy of `sessionStorage`; the lock keeps it from taking the seat of the
 * tab it was made from.
 */
export class Seat {
	#key;
	/** @type {(() => void) | null} */
	#release = null;
	#held = '';

	/** @param {string} room */
	constructor(room) {
		this.#key = `calliope.seat.${room}`;
	}

	/** @returns {Promise<string | null>} */
	async load() {
		const secret = readStore('sessionStorage', this.#key);
		if (!secret || !navigator.locks || secret === this.#held) return secret;
		return (await this.#lock(secret)) ? secret : null;
	}

	/** @param {string} secret */
	save(secret) {
		writeStore('sessionStorage', this.#key, secret);
		if (navigator.locks) void this.#lock(secret);
	}

	forget() {
		this.#release?.();
		this.#release = null;
		this.#held = '';
		writeStore('sessionStorage', this.#key, null);
	}

	/**
	 * @param {string} secret
	 * @returns {Promise<boolean>}
	 */
	#lock(secret) {
		this.#release?.();
		this.#held = secret;
		return new Promise((answer) => {
			navigator.locks
				.request(`calliope.seat.${secret}`, { ifAvailable: true }, (lock) => {
					answer(lock !== null);
					return lock && new Promise((release) => (this.#release = () => release(undefined)));
				})
				.catch(() => answer(true));
		});
	}
}
