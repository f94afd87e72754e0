import { describe, expect, test } from "bun:test";
import { closeSync, openSync, readSync } from "node:fs";
import { elfSection, type ReadAt, sealEmbeddedProgram } from "./embedded-program.ts";

/** Runs `with` on the ELF file of this very runtime. */
function onOwnFile<T>(look: (readAt: ReadAt) => T): T {
  const fd = openSync("/proc/self/exe", "r");
  try {
    return look((offset, bytes) => {
      const buffer = new Uint8Array(bytes);
      return buffer.subarray(0, readSync(fd, buffer, 0, bytes, offset));
    });
  } finally {
    closeSync(fd);
  }
}

describe("sections of an ELF file", () => {
  test("one that every program has, and one that none has", () => {
    const text = onOwnFile((readAt) => elfSection(readAt, ".text"));
    expect(text!.bytes).toBeGreaterThan(1024 * 1024);
    expect(text!.address).toBeGreaterThan(text!.imageAddress);
    expect(onOwnFile((readAt) => elfSection(readAt, ".weft-has-no-such-section"))).toBeNull();
  });

  test("of what is no such file: none", () => {
    const noise = new Uint8Array(4096).fill(0x41);
    const cut = onOwnFile((readAt) => readAt(0, 64));
    for (const file of [new Uint8Array(0), noise, cut, cut.subarray(0, 20)]) {
      expect(elfSection((offset, bytes) => file.subarray(offset, offset + bytes), ".text")).toBeNull();
    }
  });
});

test("run from source there is no compiled program to seal", () => expect(sealEmbeddedProgram()).toBe(0));
