// @ts-check
/** Single keys for everything one does often, and talking on the space bar. */

import { byId } from './dom.js';

/** Key and the button it presses; help.js tells what they do. */
const KEYS = new Map([
	['m', 'mute'],
	['v', 'camera'],
	['s', 'screen'],
	['h', 'hand'],
	['c', 'chat-toggle'],
	['p', 'people-toggle'],
	['f', 'fullscreen'],
	['l', 'copy-link'],
	['?', 'help-open'],
]);

/**
 * @param {{active: () => boolean, talk: (on: boolean) => void}} parts `active`: are the keys to be
 *   heard now? `talk`: the space bar went down or up
 */
export function startShortcuts({ active, talk }) {
	byId('help-open').addEventListener('click', async () => (await import('./help.js')).openHelp());

	let talking = false;
	const silence = () => {
		if (talking) talk(false);
		talking = false;
	};
	document.addEventListener('keyup', (event) => {
		if (event.key === ' ') silence();
	});
	window.addEventListener('blur', silence);
	document.addEventListener('keydown', (event) => {
		if (!active() || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
		if (document.querySelector('dialog[open]')) return;
		const target = /** @type {HTMLElement} */ (event.target);
		if (target.closest?.('input, textarea, select, [contenteditable]')) return;
		if (event.key === ' ' && !target.closest?.('button')) {
			event.preventDefault();
			talking = true;
			talk(true);
		} else {
			const id = KEYS.get(event.key.toLowerCase());
			if (!id || byId(id).hidden) return;
			event.preventDefault();
			byId(id).click();
		}
	});
}
