// @ts-check
/** A small typed list of listeners: what the page's parts use to tell each other things. */

export class Emitter {
	/** @type {Map<string, Set<(detail: any) => void>>} */
	#listeners = new Map();

	/**
	 * @param {string} type
	 * @param {(detail: any) => void} listener
	 * @returns {() => void} takes the listener off again
	 */
	on(type, listener) {
		const listeners = this.#listeners.get(type) ?? new Set();
		this.#listeners.set(type, listeners.add(listener));
		return () => listeners.delete(listener);
	}

	/**
	 * @param {string} type
	 * @param {any} [detail]
	 */
	emit(type, detail) {
		for (const listener of [...(this.#listeners.get(type) ?? [])]) listener(detail);
	}
}
