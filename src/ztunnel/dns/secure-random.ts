// Numbers that nobody can guess from those seen before: query ids stand between a forger and the cache of an application.

import type { Random } from "../../core/ports.ts";

const block = new Uint32Array(256);
let used = block.length;

export const secureRandom: Random = {
  next() {
    if (used === block.length) {
      crypto.getRandomValues(block);
      used = 0;
    }
    return block[used++]! / 0x1_0000_0000;
  },
};
