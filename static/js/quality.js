// @ts-check
/** How the connection does: its figures, and a quiet sign with the reason in words. */

import { byId } from './dom.js';
import { Emitter } from './emitter.js';
import { t } from './text.js';

/** @typedef {import('./protocol.js').Call} Call */

const LOOK_MS = 2000;
const LOSS_POOR = 0.05;
const RTT_POOR_MS = 400;
/** One bad look may be chance. */
const LOOKS = 2;

/**
 * @typedef {object} Figures
 * @property {number} width
 * @property {number} height
 * @property {number} fps
 * @property {number} inKbps
 * @property {number} outKbps
 * @property {number} loss 0 to 1, of the picture's packets since the last look
 * @property {number} rttMs
 * @property {number} heldMs how long a picture waited here to be shown, since the last look
 */

/** Emits `figures` with every look. */
export class Quality extends Emitter {
	#sign = byId('quality');
	/** @type {Call | null} */
	#call = null;
	/** @type {ReturnType<typeof setInterval> | undefined} */
	#timer = undefined;
	/** @type {Map<string, number>} */
	#before = new Map();
	#poor = 0;

	/** @param {Call} call */
	attach(call) {
		this.#call = call;
		this.#timer = setInterval(() => void this.#look(), LOOK_MS);
	}

	detach() {
		clearInterval(this.#timer);
		this.#call = null;
		this.#before.clear();
		this.#poor = 0;
		this.#sign.hidden = true;
	}

	async #look() {
		const report = await this.#call?.pc?.getStats().catch(() => null);
		if (!report) return;
		const figures = this.#read(report);
		const reason = this.#judge(figures);
		this.#sign.hidden = !reason;
		this.#sign.setAttribute('aria-label', reason);
		this.#sign.title = reason;
		this.emit('figures', figures);
	}

	/**
	 * @param {RTCStatsReport} report
	 * @returns {Figures}
	 */
	#read(report) {
		const figures = { width: 0, height: 0, fps: 0, inKbps: 0, outKbps: 0, loss: 0, rttMs: 0, heldMs: 0 };
		for (const each of report.values()) {
			if (each.type === 'inbound-rtp') {
				figures.inKbps += this.#rate(`${each.id}.bytes`, each.bytesReceived, each.timestamp);
				if (each.kind !== 'video') continue;
				const lost = this.#since(`${each.id}.lost`, each.packetsLost ?? 0);
				const received = this.#since(`${each.id}.received`, each.packetsReceived ?? 0);
				figures.loss = lost > 0 ? lost / Math.max(1, lost + received) : 0;
				figures.width = each.frameWidth ?? 0;
				figures.height = each.frameHeight ?? 0;
				figures.fps = each.framesPerSecond ?? 0;
				const waited = this.#since(`${each.id}.waited`, each.jitterBufferDelay ?? 0);
				const shown = this.#since(`${each.id}.shown`, each.jitterBufferEmittedCount ?? 0);
				figures.heldMs = shown > 0 ? (waited / shown) * 1000 : 0;
			} else if (each.type === 'outbound-rtp') {
				figures.outKbps += this.#rate(`${each.id}.bytes`, each.bytesSent, each.timestamp);
			} else if (each.type === 'candidate-pair' && each.currentRoundTripTime && (each.nominated ?? true)) {
				figures.rttMs = each.currentRoundTripTime * 1000;
			}
		}
		return figures;
	}

	/**
	 * @param {string} key
	 * @param {number} value
	 */
	#since(key, value) {
		const before = this.#before.get(key) ?? value;
		this.#before.set(key, value);
		return Math.max(0, value - before);
	}

	/**
	 * @param {string} key
	 * @param {number} bytes
	 * @param {number} atMs
	 */
	#rate(key, bytes, atMs) {
		const passedMs = this.#since(`${key}.at`, atMs);
		const passed = this.#since(key, bytes ?? 0);
		return passedMs > 0 ? (passed * 8) / passedMs : 0;
	}

	/**
	 * @param {Figures} figures
	 * @returns {string} what is wrong, empty when nothing is
	 */
	#judge({ loss, rttMs }) {
		const poor = loss > LOSS_POOR || rttMs > RTT_POOR_MS;
		this.#poor = poor ? this.#poor + 1 : 0;
		if (this.#poor < LOOKS) return '';
		if (loss > LOSS_POOR) return t('quality.loss', { percent: Math.round(loss * 100) });
		return t('quality.slow', { ms: Math.round(rttMs) });
	}
}
