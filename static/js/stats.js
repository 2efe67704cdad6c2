// @ts-check
/** The statistics panel, for those who look; loaded when it is opened. */

import { byId, make } from './dom.js';
import { t } from './text.js';

/** @typedef {import('./protocol.js').Call} Call */
/** @typedef {{rendition?: string, loss?: number, rtt_ms?: number, delay_ms?: number}} ServerStats */

export class Stats {
	#panel = byId('stats');
	#call;
	/** @type {ServerStats} */
	#server = {};

	/**
	 * @param {Call} call
	 * @param {import('./quality.js').Quality} quality
	 */
	constructor(call, quality) {
		this.#call = call;
		call.on('welcome', () => this.#ask());
		call.on('stats', (message) => (this.#server = message));
		quality.on('figures', (figures) => {
			if (!this.#panel.hidden) this.#show(figures);
		});
	}

	toggle() {
		this.#panel.hidden = !this.#panel.hidden;
		byId('stats-toggle').setAttribute('aria-pressed', String(!this.#panel.hidden));
		this.#ask();
	}

	/** The server tells its part only while it is asked. */
	#ask() {
		this.#call.send({ type: 'stats', on: !this.#panel.hidden });
	}

	/** @param {import('./quality.js').Figures} figures */
	#show({ width, height, fps, inKbps, outKbps, loss, rttMs, heldMs }) {
		const server = this.#server;
		const rtt = rttMs || server.rtt_ms || 0;
		// From a camera like one's own to here: up, through the server, down, and until it is shown.
		const delay = server.delay_ms === undefined ? '–' : `≈ ${Math.round(rtt + server.delay_ms + heldMs)} ms`;
		const rows = [
			['stats.picture', `${width} × ${height}, ${Math.round(fps)} fps`],
			['stats.rendition', server.rendition ?? '–'],
			['stats.received', `${Math.round(inKbps)} kbit/s`],
			['stats.sent', `${Math.round(outKbps)} kbit/s`],
			['stats.loss', `${(100 * Math.max(loss, server.loss ?? 0)).toFixed(1)} %`],
			['stats.rtt', `${Math.round(rtt)} ms`],
			['stats.delay', delay],
		];
		byId('stats-list').replaceChildren(
			...rows.map(([key, value]) => make('div', '', make('dt', '', t(key)), make('dd', '', value))),
		);
	}
}
