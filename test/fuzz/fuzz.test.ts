import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fuzz, fuzzerFiles, parseFuzzArguments, type FuzzOptions } from "./fuzz.ts";

const fixture = (folder: string, over: Partial<FuzzOptions> = {}): FuzzOptions => ({
  names: [],
  seed: 5,
  iterations: 5_000,
  minutes: 0,
  folder: join(import.meta.dir, "fixtures", folder),
  ...over,
});

for (const [name] of await fuzzerFiles(import.meta.dir)) {
  test(`fuzz: ${name} holds for a short run`, async () => {
    const seed = parseFuzzArguments([]).seed;
    const [verdict] = await fuzz({ names: [name], seed, iterations: 200, minutes: 0, folder: import.meta.dir });
    expect(verdict?.failure ?? null).toBeNull();
    expect(verdict?.iterations).toBeGreaterThanOrEqual(1);
  }, 60_000);
}

test("alarm: a failing property is reported with the seed and the command that repeats it", async () => {
  const [verdict] = await fuzz(fixture("false-property"));
  expect(verdict?.iterations).toBe(2_000);
  expect(verdict?.failure?.message).toContain("seed 7 breaks the property");
  expect(verdict?.failure?.repeat).toBe("npm run fuzz -- odd-is-even --seed 7 --iterations 1000");
});

test("alarm: the same property passes with seeds that do not break it", async () => {
  const [verdict] = await fuzz(fixture("false-property", { seed: 1, iterations: 3_000 }));
  expect(verdict).toMatchObject({ iterations: 3_000, failure: null });
});

test("alarm: a fuzzer that takes its process down is a failure", async () => {
  const [verdict] = await fuzz(fixture("crash"));
  expect(verdict?.failure?.message).toContain("SIGKILL");
  expect(verdict?.failure?.repeat).toBe("npm run fuzz -- crash --seed 5 --iterations 1000");
});

test("fuzz: an empty folder, an unknown name and half a fuzzer fail", async () => {
  const empty = mkdtempSync(join(tmpdir(), "weft-fuzz-"));
  try {
    await expect(fuzz(fixture("", { folder: empty }))).rejects.toThrow("tries nothing");
  } finally {
    rmSync(empty, { recursive: true });
  }
  await expect(fuzz(fixture("crash", { names: ["no-such"] }))).rejects.toThrow("no fuzzer named no-such; there are: crash");
  await expect(fuzz(fixture("half"))).rejects.toThrow("exports name");
});

test("fuzz: arguments are checked", () => {
  expect(parseFuzzArguments(["hpack", "--seed", "3", "--iterations", "10", "--minutes", "0.5"])).toMatchObject({
    names: ["hpack"],
    seed: 3,
    iterations: 10,
    minutes: 0.5,
  });
  expect(() => parseFuzzArguments(["--seed"])).toThrow("--seed wants a number, got nothing");
  expect(() => parseFuzzArguments(["--iterations", "0"])).toThrow("at least 1");
  expect(() => parseFuzzArguments(["--turbo"])).toThrow("unknown option --turbo");
});
