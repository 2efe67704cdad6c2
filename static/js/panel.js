// @ts-check
/** The side panel: chat or people, one at a time, or neither. */

import { byId } from './dom.js';
import { Emitter } from './emitter.js';
import { t } from './text.js';

/** @typedef {'chat' | 'people'} PanelName */

/** @type {PanelName[]} */
const PANELS = ['chat', 'people'];

/** Emits `change` with the name of what is open, or null. */
export class Panel extends Emitter {
	#screen = byId('call-screen');
	#panel = byId('panel');
	/** @type {PanelName | null} */
	#open = null;

	constructor() {
		super();
		for (const name of PANELS) {
			byId(`${name}-toggle`).addEventListener('click', () => this.toggle(name));
		}
		byId('panel-close').addEventListener('click', () => this.show(null));
		this.#panel.addEventListener('keydown', (event) => {
			if (event.key === 'Escape') this.show(null);
		});
	}

	get open() {
		return this.#open;
	}

	/** @param {PanelName} name */
	toggle(name) {
		this.show(this.#open === name ? null : name);
	}

	/** @param {PanelName | null} name */
	show(name) {
		const before = this.#open;
		this.#open = name;
		this.#screen.dataset.panel = name ?? 'none';
		this.#panel.hidden = name === null;
		if (name) byId('panel-title').textContent = t(`panel.${name}`);
		for (const each of PANELS) {
			byId(`${each}-panel`).hidden = each !== name;
			byId(`${each}-toggle`).setAttribute('aria-expanded', String(each === name));
		}
		this.emit('change', name);
		if (name === 'chat') byId('chat-input').focus();
		else if (name) byId('panel-close').focus();
		else if (before) byId(`${before}-toggle`).focus();
	}
}
