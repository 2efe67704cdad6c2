// @ts-check
/** The list of those in the call, with what each of them has on. */

import { avatar, icon, make } from './dom.js';
import { t } from './text.js';

/** @typedef {import('./protocol.js').Participant} Participant */

export class People {
  #list;
  /** @type {Map<string, HTMLElement>} */
  #rows = new Map();

  /** @param {HTMLElement} list */
  constructor(list) {
    this.#list = list;
  }

  /**
   * @param {Map<string, Participant>} people in the order of their seats
   * @param {string} you
   */
  show(people, you) {
    for (const [id, row] of this.#rows) {
      if (people.has(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    for (const person of people.values()) {
      const row = this.#rows.get(person.id) ?? make('li', 'person');
      row.dataset.personId = person.id;
      row.dataset.muted = String(person.muted);
      row.dataset.camera = String(person.camera);
      const name = make('span', 'person-name', make('bdi', '', person.name));
      if (person.id === you) name.append(' ', make('span', 'person-you', t('people.you_mark')));
      const marks = make('span', 'person-marks');
      if (person.hand) marks.append(icon('hand', t('people.hand')));
      if (person.screen) marks.append(icon('screen', t('people.screen')));
      if (!person.camera) marks.append(icon('camera-off', t('people.camera_off')));
      marks.append(person.muted ? icon('mic-off', t('people.muted')) : icon('mic', t('people.unmuted')));
      row.replaceChildren(avatar(person.name, person.id), name, marks);
      this.#rows.set(person.id, row);
      if (person.id === you) this.#list.prepend(row);
      else if (!row.parentNode) this.#list.append(row);
    }
  }

  /** @param {Set<string>} ids */
  setSpeaking(ids) {
    for (const [id, row] of this.#rows) row.toggleAttribute('data-speaking', ids.has(id));
  }

  clear() {
    this.#rows.clear();
    this.#list.replaceChildren();
  }
}
