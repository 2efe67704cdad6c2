// @ts-check
/** Before the call: one's name, a look in the mirror, what to bring along. */

import { byId, setOn } from './dom.js';
import { readStore, writeStore } from './store.js';
import { hasText, setLabel, t } from './text.js';

/** @typedef {import('./media.js').Devices} Devices */
/** @typedef {import('./protocol.js').Problem} Problem */

const NAME_KEY = 'calliope.name';
/** What the server refuses in a name: control characters and marks that turn the text around. */
const UNWANTED = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

/** @param {string} typed */
export function cleanName(typed) {
	return [...typed.replace(UNWANTED, '').trim()].slice(0, 64).join('').trim();
}

/**
 * A problem in words: by its code, else as the server put it.
 *
 * @param {Problem} problem
 */
export function sayProblem(problem) {
	const key = `problem.${problem.code}`;
	if (hasText(key)) return t(key);
	return problem.detail || t('problem.unknown');
}

export class Lobby {
	/** @type {HTMLVideoElement} */
	#preview = byId('preview');
	#box = byId('preview-box');
	#note = byId('device-note');
	#problem = byId('join-problem');
	/** @type {HTMLButtonElement} */
	#join = byId('join');
	/** @type {HTMLInputElement} */
	#name = byId('name');
	#mute = byId('lobby-mute');
	#camera = byId('lobby-camera');
	#devices;
	#busy = true;

	/**
	 * @param {{room: string, devices: Devices, onJoin: (name: string) => void}} parts
	 */
	constructor({ room, devices, onJoin }) {
		this.#devices = devices;
		byId('lobby-room').textContent = room;
		this.#name.value = readStore('localStorage', NAME_KEY) ?? '';
		byId('join-form').addEventListener('submit', (event) => {
			event.preventDefault();
			const name = cleanName(this.#name.value);
			this.#name.value = name;
			writeStore('localStorage', NAME_KEY, name || null);
			onJoin(name);
		});
		this.#mute.addEventListener('click', () => void devices.setMicrophone(!devices.microphoneOn));
		this.#camera.addEventListener('click', () => void devices.setCamera(!devices.cameraOn));
		devices.on('change', () => this.#show());
	}

	/** @param {boolean} asking while the browser asks the person for the devices */
	setAsking(asking) {
		this.#busy = asking;
		this.#show();
	}

	/** @param {boolean} joining */
	setJoining(joining) {
		this.#join.disabled = joining;
		this.#join.textContent = t(joining ? 'lobby.joining' : 'lobby.join');
		if (joining) this.showProblem(null);
	}

	/** @param {Problem | null} problem */
	showProblem(problem) {
		this.#problem.textContent = problem ? sayProblem(problem) : '';
		this.#problem.hidden = !problem;
		this.#name.toggleAttribute('aria-invalid', problem?.code === 'bad_name');
		if (problem?.code === 'bad_name') this.#name.focus();
	}

	#show() {
		const devices = this.#devices;
		const shown = /** @type {MediaStream | null} */ (this.#preview.srcObject)?.getVideoTracks()[0] ?? null;
		if (shown !== devices.camera) {
			this.#preview.srcObject = devices.camera && new MediaStream([devices.camera]);
		}
		this.#box.dataset.camera = String(devices.cameraOn);
		byId('preview-text').textContent = this.#busy
			? t('lobby.asking')
			: t(devices.trouble('camera') ? 'lobby.no_camera' : 'lobby.camera_off');
		setOn(this.#mute, devices.microphoneOn);
		setOn(this.#camera, devices.cameraOn);
		setLabel(this.#mute, devices.microphoneOn ? 'call.mute' : 'call.unmute');
		setLabel(this.#camera, devices.cameraOn ? 'call.camera_off' : 'call.camera_on');
		this.#mute.toggleAttribute('data-trouble', devices.trouble('microphone') !== null);
		this.#camera.toggleAttribute('data-trouble', devices.trouble('camera') !== null);
		const note = this.#busy ? '' : sayTrouble(devices);
		if (this.#note.textContent !== note) this.#note.textContent = note;
		this.#note.hidden = !note;
	}
}

/**
 * What is missing, and what one can do: one sentence or two.
 *
 * @param {Devices} devices
 */
export function sayTrouble(devices) {
	const camera = devices.trouble('camera');
	const microphone = devices.trouble('microphone');
	if (!camera && !microphone) return '';
	if (camera === microphone) return t(`trouble.both_${camera}`);
	const parts = [];
	if (microphone) parts.push(t(`trouble.microphone_${microphone}`));
	if (camera) parts.push(t(`trouble.camera_${camera}`));
	return parts.join(' ');
}
