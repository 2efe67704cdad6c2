// @ts-check
/**
 * The camera and the microphone of this machine: opened, switched, lost and found again. What
 * cannot be had is said by a code, never by an exception, for one may join without either.
 *
 * @typedef {'camera' | 'microphone'} Kind
 * @typedef {'insecure' | 'unsupported' | 'refused' | 'missing' | 'busy' | 'failed' | 'ended' |
 *   'interrupted'} Trouble
 */

import { Emitter } from './emitter.js';
import { readStore, writeStore } from './store.js';

const KEY = 'calliope.devices';
/** @type {Kind[]} */
const KINDS = ['microphone', 'camera'];

/**
 * @typedef {{camera: string, microphone: string, noiseSuppression: boolean,
 *   echoCancellation: boolean, autoGainControl: boolean}} Choice the devices' ids, '' for the
 *   system's own choice, and what the browser does to the voice
 */

/** @returns {Choice} */
function readChoice() {
	const choice = {
		camera: '',
		microphone: '',
		noiseSuppression: true,
		echoCancellation: true,
		autoGainControl: true,
	};
	try {
		return { ...choice, ...JSON.parse(readStore('localStorage', KEY) ?? '{}') };
	} catch {
		return choice;
	}
}

/**
 * @param {Kind} kind
 * @param {Choice} choice
 * @returns {MediaTrackConstraints}
 */
function constrain(kind, choice) {
	// Wished for, not demanded: a device that is gone is replaced by another.
	const deviceId = choice[kind] ? { deviceId: { ideal: choice[kind] } } : {};
	if (kind === 'microphone') {
		const { noiseSuppression, echoCancellation, autoGainControl } = choice;
		return { ...deviceId, noiseSuppression, echoCancellation, autoGainControl };
	}
	const facing = choice.camera ? {} : { facingMode: 'user' };
	const size = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
	return { ...deviceId, ...facing, ...size };
}

/**
 * @param {unknown} error what getUserMedia threw
 * @returns {Trouble}
 */
export function nameTrouble(error) {
	const name = error instanceof DOMException ? error.name : '';
	if (name === 'NotAllowedError' || name === 'SecurityError') return 'refused';
	if (name === 'NotFoundError' || name === 'OverconstrainedError') return 'missing';
	if (name === 'NotReadableError' || name === 'AbortError') return 'busy';
	return 'failed';
}

/**
 * @param {Kind} kind
 * @returns {Promise<PermissionState | 'unknown'>}
 */
async function permission(kind) {
	try {
		const name = /** @type {PermissionName} */ (kind);
		return (await navigator.permissions.query({ name })).state;
	} catch {
		return 'unknown';
	}
}

/**
 * Emits `change` whenever a track or a trouble is another than before, `list` when devices were
 * plugged in or out.
 */
export class Devices extends Emitter {
	/** @type {Record<Kind, MediaStreamTrack | null>} */
	#tracks = { camera: null, microphone: null };
	/** @type {Record<Kind, boolean>} */
	#wanted = { camera: true, microphone: true };
	/** @type {Record<Kind, Trouble | null>} */
	#trouble = { camera: null, microphone: null };
	/** @type {Promise<void>} */
	#turn = Promise.resolve();
	#choice = readChoice();

	constructor() {
		super();
		// A phone takes the camera away in the background; Safari may end the track for good.
		document.addEventListener('visibilitychange', () => {
			if (document.visibilityState === 'visible') this.#recover();
		});
		navigator.mediaDevices?.addEventListener?.('devicechange', () => {
			this.#recover();
			this.emit('list');
		});
	}

	get camera() {
		return this.#tracks.camera;
	}

	get microphone() {
		return this.#tracks.microphone;
	}

	/** Is there a picture to send? */
	get cameraOn() {
		const track = this.#tracks.camera;
		return track !== null && !track.muted;
	}

	/** Is there sound to send? */
	get microphoneOn() {
		const track = this.#tracks.microphone;
		return track !== null && track.enabled && !track.muted;
	}

	get choice() {
		return { ...this.#choice };
	}

	/** @returns {Promise<MediaDeviceInfo[]>} without names before the person allowed any */
	async list() {
		return (await navigator.mediaDevices?.enumerateDevices?.().catch(() => [])) ?? [];
	}

	/**
	 * Takes another device, or treats the voice otherwise; remembered.
	 *
	 * @param {Partial<Choice>} change
	 */
	choose(change) {
		this.#choice = { ...this.#choice, ...change };
		writeStore('localStorage', KEY, JSON.stringify(this.#choice));
		/** @type {Kind} */
		const kind = 'camera' in change ? 'camera' : 'microphone';
		return this.#inTurn(async () => {
			const before = this.#tracks[kind];
			if (!before) return;
			// Let go first: a phone has no two cameras open at once.
			this.#tracks[kind] = null;
			before.stop();
			await this.#get([kind]);
		});
	}

	/** @param {Kind} kind */
	trouble(kind) {
		return this.#trouble[kind];
	}

	/** Asks for both at once: one question to the person, not two. */
	open() {
		return this.#inTurn(async () => {
			const failed = await this.#get(['camera', 'microphone']);
			if (!failed || failed === 'insecure' || failed === 'unsupported') return;
			for (const kind of KINDS) {
				// Refused for both is not asked again; one alone may have been refused earlier.
				if (failed !== 'refused' || (await permission(kind)) === 'granted') await this.#get([kind]);
			}
		});
	}

	/**
	 * The camera is let go when off: its light goes out.
	 *
	 * @param {boolean} on
	 */
	setCamera(on) {
		this.#wanted.camera = on;
		return this.#inTurn(async () => {
			if (on && !this.#tracks.camera) await this.#get(['camera']);
			if (!on) this.#drop('camera', null);
		});
	}

	/**
	 * The microphone stays open when muted, so that it is back at once; it sends silence.
	 *
	 * @param {boolean} on
	 */
	setMicrophone(on) {
		this.#wanted.microphone = on;
		return this.#inTurn(async () => {
			if (on && !this.#tracks.microphone) await this.#get(['microphone']);
			if (this.#tracks.microphone) this.#tracks.microphone.enabled = on;
			this.emit('change');
		});
	}

	/** Lets go of everything. */
	close() {
		return this.#inTurn(async () => {
			this.#drop('camera', null);
			this.#drop('microphone', null);
		});
	}

	/**
	 * One change after the other: a quick second press waits for the first.
	 *
	 * @param {() => Promise<void>} work
	 */
	#inTurn(work) {
		this.#turn = this.#turn.then(work);
		return this.#turn;
	}

	/**
	 * @param {Kind[]} kinds
	 * @returns {Promise<Trouble | null>}
	 */
	async #get(kinds) {
		const trouble = await this.#open(kinds);
		for (const kind of kinds) this.#trouble[kind] = trouble;
		this.emit('change');
		return trouble;
	}

	/**
	 * @param {Kind[]} kinds
	 * @returns {Promise<Trouble | null>}
	 */
	async #open(kinds) {
		if (!globalThis.isSecureContext) return 'insecure';
		if (!navigator.mediaDevices?.getUserMedia) return 'unsupported';
		try {
			const stream = await navigator.mediaDevices.getUserMedia({
				audio: kinds.includes('microphone') && constrain('microphone', this.#choice),
				video: kinds.includes('camera') && constrain('camera', this.#choice),
			});
			for (const track of stream.getTracks()) {
				this.#keep(track.kind === 'video' ? 'camera' : 'microphone', track);
			}
			return null;
		} catch (error) {
			return nameTrouble(error);
		}
	}

	/**
	 * @param {Kind} kind
	 * @param {MediaStreamTrack} track
	 */
	#keep(kind, track) {
		this.#tracks[kind]?.stop();
		this.#tracks[kind] = track;
		if (kind === 'microphone') track.enabled = this.#wanted.microphone;
		else track.contentHint = 'motion';
		track.addEventListener('ended', () => {
			if (this.#tracks[kind] === track) this.#drop(kind, 'ended');
		});
		for (const change of ['mute', 'unmute']) {
			track.addEventListener(change, () => {
				if (this.#tracks[kind] !== track) return;
				this.#trouble[kind] = track.muted ? 'interrupted' : null;
				this.emit('change');
			});
		}
	}

	/**
	 * @param {Kind} kind
	 * @param {Trouble | null} trouble
	 */
	#drop(kind, trouble) {
		this.#tracks[kind]?.stop();
		this.#tracks[kind] = null;
		this.#trouble[kind] = trouble;
		this.emit('change');
	}

	/** Fetches again what was taken away, if it is still wanted. */
	#recover() {
		for (const kind of KINDS) {
			const lost = this.#trouble[kind] === 'ended' || this.#trouble[kind] === 'interrupted';
			if (!lost || !this.#wanted[kind]) continue;
			void this.#inTurn(async () => {
				const track = this.#tracks[kind];
				if (!track || (track.muted && document.visibilityState === 'visible')) await this.#get([kind]);
			});
		}
	}
}
