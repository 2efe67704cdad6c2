// @ts-check
/** The dialog with the room's link and its QR code; loaded when it is opened. */

import { getDialog } from './dialogs.js';
import { byId } from './dom.js';
import { drawQr, encodeQr } from './qr.js';
import { copyLink, roomLink } from './rooms.js';

export async function openInvite() {
	const dialog = await getDialog('invite');
	const code = byId('invite-code');
	if (!code.hasChildNodes()) {
		const rows = encodeQr(roomLink());
		if (rows) code.append(drawQr(rows));
		code.hidden = !rows;
		/** @type {HTMLInputElement} */
		const field = byId('invite-link');
		field.value = roomLink();
		field.addEventListener('focus', () => field.select());
		byId('invite-copy').addEventListener('click', async () => {
			byId('invite-copied').textContent = await copyLink();
		});
	}
	byId('invite-copied').textContent = '';
	dialog.showModal();
	byId('invite-copy').focus();
}
