// @ts-check
/** Messages shown by the desktop while nobody looks at the page; only for those who wish for it. */

import { t } from './text.js';

/** @returns {Promise<boolean>} may the page show them? */
export async function askToNotify() {
	if (!('Notification' in globalThis)) return false;
	return (await Notification.requestPermission()) === 'granted';
}

/** @param {import('./protocol.js').ChatLine} line */
export function notify({ name, text }) {
	try {
		// One at a time: a newer message stands in the place of the one before.
		const note = new Notification(t('notify.title', { name }), {
			body: text,
			icon: '/static/icon-192.png',
			tag: 'calliope-chat',
		});
		note.addEventListener('click', () => {
			window.focus();
			note.close();
		});
	} catch {
		// Chrome on Android shows them only for pages with a service worker.
	}
}
