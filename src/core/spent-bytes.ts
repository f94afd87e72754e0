// Large buffers given back as soon as nobody reads them any more. The collector would find them later: those that it meets while they are
// in use it takes for old, and keeps until it looks at the whole heap, a hundred megabytes further on in a bulk transfer. Given back at
// once, the next buffer gets the same memory, which the processor's cache still has.

/** Below it the collector is as quick, and there are too few bytes for it to matter. */
export const GIVEN_BACK_BYTES_MIN = 32 * 1024;

/**
 * Frees what a socket handed over, when its borrower is done with it. Its length is 0 from here on, and that of every view of it.
 * @param chunk a view of something larger is left alone: others may read the rest.
 */
export function giveBack(chunk: Uint8Array): void {
  if (chunk.length >= GIVEN_BACK_BYTES_MIN && chunk.length === chunk.buffer.byteLength) giveBackWhole(chunk);
}

/** Frees all of the buffer that `view` lies in, which is the caller's own. */
export function giveBackWhole({ buffer }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength >= GIVEN_BACK_BYTES_MIN) buffer.transfer(0);
}
