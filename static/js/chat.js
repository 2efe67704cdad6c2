// @ts-check
/** The chat panel: what was said, with names and times; unread lines are counted. */

import { make } from './dom.js';
import { Emitter } from './emitter.js';
import { t } from './text.js';

/** @typedef {import('./protocol.js').ChatLine} ChatLine */

const KEPT = 500;
/** Lines of one person within this time stand under one name. */
const TOGETHER_MS = 120_000;

/** Emits `send` with a text, and `unread` with the number of lines not seen yet. */
export class Chat extends Emitter {
	/** @type {ChatLine[]} */
	#lines = [];
	#log;
	#scroll;
	#input;
	#you = '';
	#unread = 0;
	#visible = false;

	/** @param {{log: HTMLElement, form: HTMLFormElement, input: HTMLTextAreaElement}} parts */
	constructor({ log, form, input }) {
		super();
		this.#log = log;
		this.#scroll = /** @type {HTMLElement} */ (log.parentElement);
		this.#input = input;
		form.addEventListener('submit', (event) => {
			event.preventDefault();
			this.#send();
		});
		input.addEventListener('keydown', (event) => {
			if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
			event.preventDefault();
			this.#send();
		});
	}

	/**
	 * What the server remembers; lines that are here already are not shown twice.
	 *
	 * @param {ChatLine[]} lines
	 * @param {string} [you]
	 */
	remember(lines, you = this.#you) {
		this.#you = you;
		const known = new Set(this.#lines.map(keyOf));
		const fresh = lines.filter((line) => !known.has(keyOf(line)));
		this.#lines = [...this.#lines, ...fresh].sort((a, b) => a.at - b.at).slice(-KEPT);
		this.#log.replaceChildren();
		let previous = null;
		for (const line of this.#lines) {
			this.#show(line, previous);
			previous = line;
		}
		this.#scrollDown();
	}

	/** @param {ChatLine} line */
	add(line) {
		const previous = this.#lines[this.#lines.length - 1] ?? null;
		const following = this.#scroll.scrollTop > -60;
		this.#lines.push(line);
		this.#show(line, previous);
		if (this.#lines.length > KEPT) {
			this.#lines.shift();
			this.#log.firstElementChild?.remove();
		}
		if (following || line.from === this.#you) this.#scrollDown();
		if (!this.#visible && line.from !== this.#you) {
			this.#unread += 1;
			this.emit('unread', this.#unread);
		}
	}

	/** @param {boolean} visible */
	setVisible(visible) {
		this.#visible = visible;
		if (!visible) return;
		this.#unread = 0;
		this.emit('unread', 0);
		this.#scrollDown();
	}

	/** @param {boolean} connected */
	setConnected(connected) {
		this.#input.disabled = !connected;
		this.#input.placeholder = t(connected ? 'chat.placeholder' : 'chat.offline');
	}

	clear() {
		this.#lines = [];
		this.#unread = 0;
		this.#log.replaceChildren();
		this.#input.value = '';
		this.emit('unread', 0);
	}

	#send() {
		const text = this.#input.value.trim();
		if (!text) return;
		/** @type {{text: string, sent: boolean}} */
		const request = { text, sent: false };
		this.emit('send', request);
		if (request.sent) this.#input.value = '';
	}

	/** The log is laid out from its end: there is 0. */
	#scrollDown() {
		this.#scroll.scrollTop = 0;
	}

	/**
	 * @param {ChatLine} line
	 * @param {ChatLine | null} previous
	 */
	#show(line, previous) {
		const own = line.from === this.#you;
		const together = previous?.from === line.from && line.at - previous.at < TOGETHER_MS;
		const entry = make('li', own ? 'line own' : 'line');
		entry.classList.toggle('together', together);
		const time = make('time', '', formatTime(line.at));
		time.dateTime = new Date(line.at).toISOString();
		const name = make('bdi', 'line-name', own ? t('chat.you') : line.name);
		const head = make('p', 'line-head', name, ' ', time);
		if (together) head.classList.add('visually-hidden');
		const text = make('p', 'line-text', ...linkify(line.text));
		text.dir = 'auto';
		entry.append(head, text);
		this.#log.append(entry);
	}
}

/**
 * A text with its web addresses as links. Only https and http become links, and everything stays
 * text: nothing of it is ever read as HTML.
 *
 * @param {string} text
 * @returns {(string | HTMLAnchorElement)[]}
 */
export function linkify(text) {
	return text.split(/(https?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]}])/i).map((part, index) => {
		if (index % 2 === 0) return part;
		const link = make('a', '', part);
		link.href = part;
		link.target = '_blank';
		link.rel = 'noopener noreferrer nofollow';
		return link;
	});
}

/** @param {ChatLine} line */
function keyOf(line) {
	return `${line.id}:${line.at}`;
}

/** @param {number} at Unix milliseconds */
function formatTime(at) {
	return new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' }).format(at);
}
