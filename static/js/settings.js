// @ts-check
/** The settings dialog: which camera, microphone and speaker, and how the voice is treated. */

import { byId } from './dom.js';
import { Emitter } from './emitter.js';
import { Meter } from './meter.js';
import { askToNotify } from './notify.js';
import { readFlag, writeFlag } from './store.js';
import { t } from './text.js';

/** @typedef {import('./media.js').Devices} Devices */
/** @typedef {import('./sound.js').Sound} Sound */

/** Louder than this is a voice. */
const VOICE = 0.35;

/** Emits `self` (is one's own picture hidden from oneself?). */
export class Settings extends Emitter {
	#dialog;
	/** @type {HTMLMeterElement} */
	#level = byId('level');
	#meter;
	#devices;
	#sound;

	/**
	 * @param {{dialog: HTMLDialogElement, devices: Devices, sound: Sound}} parts
	 */
	constructor({ dialog, devices, sound }) {
		super();
		this.#dialog = dialog;
		this.#devices = devices;
		this.#sound = sound;
		this.#meter = new Meter((level) => {
			this.#level.value = level;
			if (level > VOICE) byId('level-text').textContent = t('settings.heard');
		});
		this.#dialog.addEventListener('close', () => this.#meter.watch(null));
		this.#select('camera-select').addEventListener('change', (event) =>
			devices.choose({ camera: valueOf(event) }),
		);
		this.#select('microphone-select').addEventListener('change', (event) =>
			devices.choose({ microphone: valueOf(event) }),
		);
		this.#select('speaker-select').addEventListener('change', (event) =>
			sound.setSpeaker(valueOf(event)),
		);
		const { choice } = devices;
		this.#check('noise', choice.noiseSuppression, (on) => devices.choose({ noiseSuppression: on }));
		this.#check('echo', choice.echoCancellation, (on) => devices.choose({ echoCancellation: on }));
		this.#check('gain', choice.autoGainControl, (on) => devices.choose({ autoGainControl: on }));
		this.#check('hide-self', readFlag('hide_self', false), (on) => {
			writeFlag('hide_self', on);
			this.emit('self', on);
		});
		this.#check('notify', readFlag('notify', false), (on) => void this.#setNotify(on));
		this.#check('shortcuts', readFlag('shortcuts', true), (on) => writeFlag('shortcuts', on));
		devices.on('list', () => void this.#list());
		devices.on('change', () => this.#refresh());
	}

	open() {
		byId('level-text').textContent = t('settings.level_hint');
		this.#dialog.showModal();
		this.#refresh();
	}

	/**
	 * Only who wishes for it is asked by the browser whether messages may be shown outside the page.
	 *
	 * @param {boolean} wanted
	 */
	async #setNotify(wanted) {
		const on = wanted && (await askToNotify());
		writeFlag('notify', on);
		/** @type {HTMLInputElement} */ (byId('notify')).checked = on;
		byId('notify-problem').hidden = on || !wanted;
	}

	#refresh() {
		if (!this.#dialog.open) return;
		this.#meter.watch(this.#devices.microphone);
		if (!this.#devices.microphone) this.#level.value = 0;
		void this.#list();
	}

	async #list() {
		if (!this.#dialog.open) return;
		const all = await this.#devices.list();
		const { camera, microphone } = this.#devices.choice;
		const inUse = {
			camera: this.#devices.camera?.getSettings().deviceId ?? camera,
			microphone: this.#devices.microphone?.getSettings().deviceId ?? microphone,
		};
		this.#fill('camera-select', all, 'videoinput', inUse.camera);
		this.#fill('microphone-select', all, 'audioinput', inUse.microphone);
		const speakers = all.some((each) => each.kind === 'audiooutput');
		byId('speaker-choice').hidden = !speakers || !this.#sound.canChoose;
		this.#fill('speaker-select', all, 'audiooutput', this.#sound.speaker);
	}

	/**
	 * @param {string} id
	 * @param {MediaDeviceInfo[]} all
	 * @param {MediaDeviceKind} kind
	 * @param {string} chosen
	 */
	#fill(id, all, kind, chosen) {
		const select = this.#select(id);
		const devices = all.filter((each) => each.kind === kind);
		const options = devices.map((device, index) => {
			const name = device.label || t('settings.device', { number: index + 1 });
			return new Option(name, device.deviceId, false, device.deviceId === chosen);
		});
		if (options.length === 0) options.push(new Option(t('settings.none'), ''));
		select.replaceChildren(...options);
		select.disabled = devices.length === 0;
	}

	/** @param {string} id */
	#select(id) {
		return /** @type {HTMLSelectElement} */ (byId(id));
	}

	/**
	 * @param {string} id
	 * @param {boolean} on
	 * @param {(on: boolean) => void} onChange
	 */
	#check(id, on, onChange) {
		/** @type {HTMLInputElement} */
		const box = byId(id);
		box.checked = on;
		box.addEventListener('change', () => onChange(box.checked));
	}
}

/** @param {Event} event */
function valueOf(event) {
	return /** @type {HTMLSelectElement} */ (event.target).value;
}
