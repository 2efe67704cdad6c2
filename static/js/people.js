// @ts-check
/** The list of those in the call, with what each of them has on, and how loud one hears them. */

import { avatar, icon, make } from './dom.js';
import { Emitter } from './emitter.js';
import { t } from './text.js';

/** @typedef {import('./protocol.js').Participant} Participant */
/** @typedef {{row: HTMLElement, face: HTMLElement, name: HTMLElement, marks: HTMLElement}} Row */

/** Emits `volume` {id, gain}: 0 for not at all, 1 as it is, 2 for twice as loud. */
export class People extends Emitter {
	#list;
	#search;
	/** @type {Map<string, Row>} */
	#rows = new Map();
	/** @type {Map<string, number>} */
	#gains = new Map();

	/** @param {{list: HTMLElement, search: HTMLInputElement}} parts */
	constructor({ list, search }) {
		super();
		this.#list = list;
		this.#search = search;
		search.addEventListener('input', () => this.#filter());
	}

	/** What was set other than 1, to be said again after a new connection. */
	get gains() {
		return [...this.#gains].map(([id, gain]) => ({ id, gain }));
	}

	/**
	 * @param {Map<string, Participant>} people in the order of their seats
	 * @param {string} you
	 */
	show(people, you) {
		for (const [id, { row }] of this.#rows) {
			if (people.has(id)) continue;
			row.remove();
			this.#rows.delete(id);
			this.#gains.delete(id);
		}
		for (const person of people.values()) {
			const known = this.#rows.get(person.id);
			const row = known ?? this.#add(person, person.id === you);
			this.#describe(row, person, person.id === you);
		}
		this.#filter();
	}

	/** @param {Set<string>} ids */
	setSpeaking(ids) {
		for (const [id, { row }] of this.#rows) row.toggleAttribute('data-speaking', ids.has(id));
	}

	clear() {
		this.#rows.clear();
		this.#gains.clear();
		this.#list.replaceChildren();
		this.#search.value = '';
	}

	/**
	 * @param {Participant} person
	 * @param {boolean} isYou
	 * @returns {Row}
	 */
	#add(person, isYou) {
		const face = make('span', 'person-face');
		const name = make('span', 'person-name');
		const marks = make('span', 'person-marks');
		const row = make('li', 'person', face, name, marks);
		row.dataset.personId = person.id;
		if (!isYou) row.append(...this.#volume(person));
		if (isYou) this.#list.prepend(row);
		else this.#list.append(row);
		const made = { row, face, name, marks };
		this.#rows.set(person.id, made);
		return made;
	}

	/**
	 * @param {Row} row
	 * @param {Participant} person
	 * @param {boolean} isYou
	 */
	#describe({ row, face, name, marks }, person, isYou) {
		row.dataset.muted = String(person.muted);
		row.dataset.camera = String(person.camera);
		if (row.dataset.name !== person.name) {
			row.dataset.name = person.name;
			face.replaceChildren(avatar(person.name, person.id));
			name.replaceChildren(make('bdi', '', person.name));
			if (isYou) name.append(' ', make('span', 'person-you', t('people.you_mark')));
		}
		marks.replaceChildren();
		if (person.hand) marks.append(icon('hand', t('people.hand')));
		if (person.screen) marks.append(icon('screen', t('people.screen')));
		if (!person.camera) marks.append(icon('camera-off', t('people.camera_off')));
		marks.append(person.muted ? icon('mic-off', t('people.muted')) : icon('mic', t('people.unmuted')));
	}

	/**
	 * A button that opens a slider for this person's volume.
	 *
	 * @param {Participant} person
	 */
	#volume({ id, name }) {
		const button = make('button', 'round quiet small', icon('sound'));
		const slider = make('input', 'volume');
		const label = t('people.volume', { name });
		button.type = 'button';
		button.title = label;
		button.setAttribute('aria-label', label);
		button.setAttribute('aria-expanded', 'false');
		Object.assign(slider, { type: 'range', min: '0', max: '2', step: '0.1', value: '1', hidden: true });
		slider.setAttribute('aria-label', label);
		button.addEventListener('click', () => {
			slider.hidden = !slider.hidden;
			button.setAttribute('aria-expanded', String(!slider.hidden));
			if (!slider.hidden) slider.focus();
		});
		slider.addEventListener('change', () => {
			const gain = Number(slider.value);
			if (gain === 1) this.#gains.delete(id);
			else this.#gains.set(id, gain);
			this.emit('volume', { id, gain });
		});
		return [button, slider];
	}

	#filter() {
		this.#search.hidden = this.#rows.size < 8 && !this.#search.value;
		const wanted = this.#search.value.trim().toLocaleLowerCase();
		for (const { row } of this.#rows.values()) {
			row.hidden = !(row.dataset.name ?? '').toLocaleLowerCase().includes(wanted);
		}
	}
}
