// @ts-check
/** The dialogs that few open, fetched when the first of them is. */

import { byId, fillIcons } from './dom.js';
import { fillText } from './text.js';

/** @type {Promise<void> | undefined} */
let fetched;

/**
 * @param {string} id
 * @returns {Promise<HTMLDialogElement>} in the page, closed by its button, Escape or a press beside it
 */
export async function getDialog(id) {
	fetched ??= fetchDialogs();
	await fetched;
	/** @type {HTMLDialogElement} */
	const dialog = byId(id);
	return dialog;
}

async function fetchDialogs() {
	const answer = await fetch('/static/dialogs.html');
	const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
	fillIcons(page);
	fillText(page);
	await loadStyle(page.querySelector('link'));
	for (const dialog of page.querySelectorAll('dialog')) {
		document.body.append(dialog);
		dialog.addEventListener('click', (event) => {
			// The backdrop belongs to the dialog itself; what is in it does not.
			if (event.target === dialog) dialog.close();
		});
	}
}

/**
 * Resolves when the sheet is in force: a dialog never shows itself without it.
 *
 * @param {HTMLLinkElement | null} link
 */
function loadStyle(link) {
	return new Promise((resolve) => {
		if (!link) return resolve(null);
		for (const end of ['load', 'error']) link.addEventListener(end, resolve);
		document.head.append(link);
	});
}
