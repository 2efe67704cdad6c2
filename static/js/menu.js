// @ts-check
/** The menu behind the three dots: reactions, views, and what is needed less often. */

import { byId, make } from './dom.js';
import { Emitter } from './emitter.js';

const REACTIONS = ['👍', '👏', '❤️', '😂', '🎉', '😮'];

/** Emits `reaction` with an emoji and `view` with a name. */
export class Menu extends Emitter {
	#menu = byId('menu');
	#button = byId('more');
	/** @param {Event} event */
	#outside = (event) => {
		const target = /** @type {Node} */ (event.target);
		if (!this.#menu.contains(target) && !this.#button.contains(target)) this.show(false);
	};

	constructor() {
		super();
		this.#button.addEventListener('click', () => this.show(Boolean(this.#menu.hidden)));
		this.#menu.addEventListener('keydown', (event) => {
			if (event.key !== 'Escape') return;
			this.show(false);
			this.#button.focus();
		});
		for (const emoji of REACTIONS) {
			const button = make('button', 'reaction-button', emoji);
			button.type = 'button';
			button.addEventListener('click', () => {
				this.emit('reaction', emoji);
				this.show(false);
			});
			this.#menu.querySelector('.reactions')?.append(button);
		}
		/** @type {NodeListOf<HTMLInputElement>} */
		const views = this.#menu.querySelectorAll('[name=view]');
		for (const view of views) {
			view.checked = view.defaultChecked; // Firefox remembers over a reload
			view.addEventListener('change', () => this.emit('view', view.value));
		}
		for (const item of this.#menu.querySelectorAll('.item')) {
			item.addEventListener('click', () => this.show(false));
		}
	}

	/** @param {boolean} open */
	show(open) {
		if (open === !this.#menu.hidden) return;
		this.#menu.hidden = !open;
		this.#button.setAttribute('aria-expanded', String(open));
		if (open) {
			document.addEventListener('pointerdown', this.#outside);
			/** @type {HTMLElement | null} */ (this.#menu.querySelector('button, input'))?.focus();
		} else {
			document.removeEventListener('pointerdown', this.#outside);
		}
	}
}
