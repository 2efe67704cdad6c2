// @ts-check
/** The list of the single-key shortcuts; loaded when it is opened. */

import { getDialog } from './dialogs.js';
import { byId, make } from './dom.js';
import { t } from './text.js';

export async function openHelp() {
	const dialog = await getDialog('help');
	const rows = [
		['M', t('help.mute')],
		['V', t('help.camera')],
		['S', t('call.screen')],
		['H', t('help.hand')],
		['C', t('panel.chat')],
		['P', t('panel.people')],
		['F', t('menu.fullscreen')],
		['L', t('call.copy_link')],
		['?', t('help.help')],
		[t('help.space'), t('help.talk')],
	];
	byId('help-keys').replaceChildren(
		...rows.map(([key, text]) => make('div', '', make('dt', '', make('kbd', '', key)), make('dd', '', text))),
	);
	dialog.showModal();
}
