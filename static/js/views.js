// @ts-check
/**
 * Which view the server is asked for: the one a person chose, but for a pin. A pin crops and
 * enlarges at once what is there, and a tile of many is small; while the one who is pinned leads,
 * the speaker view carries far more of that picture.
 */

import { Emitter } from './emitter.js';

/**
 * Whoever has been alone in speaking for so long leads: the server lets a main speaker stay for two
 * seconds (calliope/mixer/lead.py). Asked earlier, the view might show somebody else large.
 */
export const ALONE_MS = 2500;

/**
 * @param {object} now
 * @param {string} now.chosen the view the person wants
 * @param {string} now.asked what the server was asked for last
 * @param {string} now.shown the view on the screen
 * @param {number} now.width of the pinned camera on the screen, as a part of it; 0: nobody is pinned
 * @param {number} now.usual the same in the chosen view, when it was last on the screen
 * @param {number} now.aloneMs for how long nobody but the one who is pinned has spoken
 * @returns {string} the view to ask for
 */
export function suitPin({ chosen, asked, shown, width, usual, aloneMs }) {
	if (!width || (chosen !== 'auto' && chosen !== 'grid')) return chosen;
	if (asked !== 'speaker') return aloneMs >= ALONE_MS ? 'speaker' : chosen;
	// Asked for and not on the screen yet, or on it: there it is left when somebody else leads.
	return shown === 'speaker' && width < usual ? chosen : 'speaker';
}

/** Emits `ask` with the name of a view whenever it is to be another. */
export class Views extends Emitter {
	#chosen = 'auto';
	#asked = 'auto';
	#shown = '';
	#pinned = '';
	#width = 0;
	#usual = 0;
	#alone = '';
	#aloneSince = 0;
	/** @type {ReturnType<typeof setTimeout> | undefined} */
	#timer = undefined;

	/** What the server was asked for last; to be said again after a new connection. */
	get asked() {
		return this.#asked;
	}

	/** @param {string} view the person's own choice */
	choose(view) {
		this.#chosen = view;
		this.#decide();
	}

	/** @param {Set<string>} ids all who speak */
	setSpeaking(ids) {
		const [first = ''] = ids;
		const alone = ids.size === 1 ? first : '';
		if (alone === this.#alone) return;
		this.#alone = alone;
		this.#aloneSince = performance.now();
		this.#decide();
	}

	/**
	 * @param {string} shown the view on the screen
	 * @param {string} pinned whose camera is enlarged; '' for nobody's
	 * @param {number} width of that camera, as a part of the picture
	 */
	setPinned(shown, pinned, width) {
		this.#shown = shown;
		this.#pinned = pinned;
		this.#width = width;
		if (shown !== 'speaker') this.#usual = width;
		this.#decide();
	}

	clear() {
		clearTimeout(this.#timer);
		this.#asked = this.#chosen;
		this.#alone = this.#pinned = '';
		this.#width = 0;
	}

	#decide() {
		clearTimeout(this.#timer);
		const speaks = this.#pinned !== '' && this.#alone === this.#pinned;
		const aloneMs = speaks ? performance.now() - this.#aloneSince : 0;
		const view = suitPin({
			chosen: this.#chosen,
			asked: this.#asked,
			shown: this.#shown,
			width: this.#width,
			usual: this.#usual,
			aloneMs,
		});
		if (speaks && aloneMs < ALONE_MS) {
			this.#timer = setTimeout(() => this.#decide(), ALONE_MS - aloneMs + 1);
		}
		if (view === this.#asked) return;
		// After a turn back, the one who is pinned has to be alone for as long again.
		if (view !== 'speaker') this.#aloneSince = performance.now();
		this.#asked = view;
		this.emit('ask', view);
	}
}
