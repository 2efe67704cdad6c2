// @ts-check
/**
 * QR codes (ISO/IEC 18004) of byte data with error correction level M, versions 1 to 10: up to 213
 * bytes, enough for any link to a room. Pure functions.
 */

/** For each version: codewords in all, and in each block those for correction; how many blocks. */
const TOTAL = [26, 44, 70, 100, 134, 172, 196, 242, 292, 346];
const CORRECTION = [10, 16, 26, 18, 24, 16, 18, 22, 22, 26];
const BLOCKS = [1, 1, 1, 2, 2, 4, 4, 4, 5, 5];

/** @type {((x: number, y: number) => number)[]} a module is turned over where this is 0 */
const MASKS = [
	(x, y) => (x + y) % 2,
	(_x, y) => y % 2,
	(x) => x % 3,
	(x, y) => (x + y) % 3,
	(x, y) => (Math.floor(y / 2) + Math.floor(x / 3)) % 2,
	(x, y) => ((x * y) % 2) + ((x * y) % 3),
	(x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2,
	(x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2,
];

/**
 * @param {string} text
 * @returns {number[][] | null} rows of 1 for dark and 0 for light, without the quiet zone; null when
 *   the text is too long
 */
export function encodeQr(text) {
	const bytes = new TextEncoder().encode(text);
	for (let version = 1; version <= TOTAL.length; version += 1) {
		const room = TOTAL[version - 1] - CORRECTION[version - 1] * BLOCKS[version - 1];
		const lengthBits = version < 10 ? 8 : 16;
		if (4 + lengthBits + 8 * bytes.length > 8 * room) continue;
		const codewords = interleave(pack(bytes, lengthBits, room), version);
		return draw(codewords, version);
	}
	return null;
}

/**
 * The code as a picture: one unit for a module, with its quiet zone of four.
 *
 * @param {number[][]} rows
 */
export function drawQr(rows) {
	const size = rows.length + 8;
	const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
	const path = document.createElementNS(svg.namespaceURI, 'path');
	const dark = rows.map((row, y) => row.map((on, x) => (on ? `M${x + 4} ${y + 4}h1v1h-1z` : '')).join(''));
	svg.setAttribute('viewBox', `0 0 ${size} ${size}`);
	path.setAttribute('d', dark.join(''));
	svg.append(path);
	return svg;
}

/**
 * @param {Uint8Array} bytes
 * @param {number} lengthBits
 * @param {number} room how many data codewords there are
 */
function pack(bytes, lengthBits, room) {
	const data = [...bytes].map((byte) => inBinary(byte, 8)).join('');
	const bits = `0100${inBinary(bytes.length, lengthBits)}${data}0000`;
	const codewords = (bits.match(/.{8}/g) ?? []).map((each) => parseInt(each, 2));
	// The terminator never fits worse than this: with whole bytes, half a byte is always left over.
	for (let i = 0; codewords.length < room; i += 1) codewords.push(i % 2 ? 0x11 : 0xec);
	return codewords;
}

/**
 * Cuts the data into blocks, gives each its correction, and deals them out in turn.
 *
 * @param {number[]} data
 * @param {number} version
 */
function interleave(data, version) {
	const count = BLOCKS[version - 1];
	const short = Math.floor(data.length / count);
	const blocks = [];
	for (let i = 0, start = 0; i < count; i += 1) {
		const end = start + short + (i >= count - (data.length % count) ? 1 : 0);
		blocks.push(data.slice(start, end));
		start = end;
	}
	const corrections = blocks.map((block) => correct(block, CORRECTION[version - 1]));
	return [...deal(blocks), ...deal(corrections)];
}

/** @param {number[][]} blocks */
function deal(blocks) {
	const longest = Math.max(...blocks.map((block) => block.length));
	return Array.from({ length: longest }, (_, i) => blocks.flatMap((block) => block.slice(i, i + 1))).flat();
}

/**
 * Reed-Solomon: the remainder of the block's polynomial, over GF(256) modulo x^8+x^4+x^3+x^2+1.
 *
 * @param {number[]} block
 * @param {number} degree
 */
function correct(block, degree) {
	// (x - 2^0)(x - 2^1)... without its leading 1, highest power first.
	let generator = [1];
	for (let i = 0, root = 1; i < degree; i += 1, root = times(root, 2)) {
		const shifted = [...generator, 0];
		generator = shifted.map((each, j) => each ^ (j ? times(generator[j - 1], root) : 0));
	}
	let remainder = new Array(degree).fill(0);
	for (const byte of block) {
		const factor = byte ^ remainder[0];
		remainder = generator.slice(1).map((each, j) => (remainder[j + 1] ?? 0) ^ times(each, factor));
	}
	return remainder;
}

/**
 * @param {number} a
 * @param {number} b
 */
function times(a, b) {
	let product = 0;
	for (; b; b >>= 1) {
		if (b & 1) product ^= a;
		a = (a << 1) ^ (a & 0x80 ? 0x11d : 0);
	}
	return product;
}

/**
 * @param {number[]} codewords
 * @param {number} version
 */
function draw(codewords, version) {
	const blank = drawFixed(version);
	const size = blank.length;
	const bits = codewords.map((each) => inBinary(each, 8)).join('');
	/** The modules that carry data, in their order: two columns at a time, up and down. @type {number[][]} */
	const path = [];
	for (let right = size - 1, upwards = true; right > 0; right -= 2, upwards = !upwards) {
		if (right === 6) right = 5; // the vertical timing pattern
		for (let i = 0; i < size; i += 1) {
			const y = upwards ? size - 1 - i : i;
			for (const x of [right, right - 1]) if (blank[y][x] === null) path.push([x, y]);
		}
	}
	const candidates = MASKS.map((isLight, mask) => {
		const rows = blank.map((row) => row.map(Number));
		path.forEach(([x, y], i) => (rows[y][x] = Number(bits[i] ?? 0) ^ Number(isLight(x, y) === 0)));
		drawFormat(rows, mask);
		return { rows, penalty: judge(rows) };
	});
	return candidates.reduce((best, each) => (each.penalty < best.penalty ? each : best)).rows;
}

/**
 * What every code of this version has in common; null where data goes.
 *
 * @param {number} version
 */
function drawFixed(version) {
	const size = 17 + 4 * version;
	/** @type {(number | null)[][]} */
	const rows = Array.from({ length: size }, () => new Array(size).fill(null));
	/** @type {(left: number, top: number, width: number, isDark: (ring: number) => boolean) => void} */
	const square = (left, top, width, isDark) => {
		for (let y = 0; y < width; y += 1) {
			for (let x = 0; x < width; x += 1) {
				const ring = Math.max(Math.abs(x - (width - 1) / 2), Math.abs(y - (width - 1) / 2));
				const row = rows[top + y];
				if (row && left + x in row) row[left + x] = Number(isDark(ring));
			}
		}
	};
	for (let i = 0; i < size; i += 1) rows[6][i] = rows[i][6] = 1 - (i % 2);
	// Alignment patterns, but not under the finders.
	const last = 4 * version + 10;
	const lines = version === 1 ? [] : version < 7 ? [6, last] : [6, 2 * version + 8, last];
	for (const x of lines) {
		for (const y of lines) {
			const hidden = Math.min(x, y) === 6 && [6, last].includes(Math.max(x, y));
			if (!hidden) square(x - 2, y - 2, 5, (ring) => ring !== 1);
		}
	}
	// Finders with their light border, and beside them the room for the format.
	for (const [left, top] of [[0, 0], [size - 7, 0], [0, size - 7]]) {
		square(left - 1, top - 1, 9, (ring) => ring !== 2 && ring !== 4);
	}
	drawFormat(rows, 0);
	if (version >= 7) {
		const bits = (version << 12) | remainder(version, 12, 0x1f25);
		for (let i = 0; i < 18; i += 1) {
			const [near, far] = [Math.floor(i / 3), size - 11 + (i % 3)];
			rows[near][far] = rows[far][near] = (bits >> i) & 1;
		}
	}
	return rows;
}

/**
 * Writes twice which mask was taken, and that the level is M.
 *
 * @param {(number | null)[][]} rows
 * @param {number} mask
 */
function drawFormat(rows, mask) {
	const size = rows.length;
	const bits = ((mask << 10) | remainder(mask, 10, 0x537)) ^ 0x5412;
	for (let i = 0; i < 15; i += 1) {
		const bit = (bits >> i) & 1;
		// Around the upper left finder, over the timing patterns; and split between the other two.
		if (i < 8) rows[i < 6 ? i : i + 1][8] = rows[8][size - 1 - i] = bit;
		else rows[8][i < 9 ? 7 : 14 - i] = rows[size - 15 + i][8] = bit;
	}
	rows[size - 8][8] = 1;
}

/**
 * A BCH code's check bits.
 *
 * @param {number} value
 * @param {number} degree
 * @param {number} generator
 */
function remainder(value, degree, generator) {
	let rest = value << degree;
	for (let bit = 31 - Math.clz32(rest); bit >= degree; bit = 31 - Math.clz32(rest)) rest ^= generator << (bit - degree);
	return rest;
}

/**
 * How hard a code is to read: long runs, squares, what looks like a finder, too much of one colour.
 *
 * @param {number[][]} rows
 */
function judge(rows) {
	const across = rows.map((row) => row.join(''));
	const down = rows.map((_, x) => rows.map((row) => row[x]).join(''));
	let penalty = 0;
	for (const line of [...across, ...down]) {
		for (const [run] of line.matchAll(/0{5,}|1{5,}/g)) penalty += run.length - 2;
		penalty += 40 * [...line.matchAll(/(?=10111010000|00001011101)/g)].length;
	}
	let dark = 0;
	rows.forEach((row, y) => {
		row.forEach((on, x) => {
			dark += on;
			const sum = on + row[x - 1] + (rows[y - 1]?.[x] ?? NaN) + (rows[y - 1]?.[x - 1] ?? NaN);
			if (sum === 0 || sum === 4) penalty += 3;
		});
	});
	return penalty + 10 * Math.floor(Math.abs((100 * dark) / rows.length ** 2 - 50) / 5);
}

/**
 * @param {number} value
 * @param {number} width
 */
function inBinary(value, width) {
	return value.toString(2).padStart(width, '0');
}
