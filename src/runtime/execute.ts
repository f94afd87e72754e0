// execve of ourselves: the same process, the same pid (a supervisor must not notice), another environment.

import { dlopen, ptr } from "bun:ffi";
import { readFileSync } from "node:fs";

/** Replaces this process. Returns only when that failed, with -1: the caller goes on without. */
export function execute(file: string, args: readonly string[], environment: Readonly<Record<string, string>>): number {
  const { symbols } = dlopen("libc.so.6", { execve: { args: ["ptr", "ptr", "ptr"], returns: "i32" } });
  const path = cString(file);
  const argv = cStrings(args);
  const envp = cStrings(Object.entries(environment).map(([name, value]) => `${name}=${value}`));
  return symbols.execve(ptr(path), ptr(argv.pointers), ptr(envp.pointers));
}

/** The arguments this process was started with, as the kernel keeps them. */
export function ownArguments(): string[] {
  const args = readFileSync("/proc/self/cmdline", "utf8").split("\0");
  args.pop();
  return args;
}

function cString(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}

/** A NULL-terminated array of pointers; `strings` keeps what they point to alive. */
function cStrings(texts: readonly string[]): { pointers: BigUint64Array; strings: Uint8Array[] } {
  const strings = texts.map(cString);
  const pointers = new BigUint64Array(strings.length + 1);
  strings.forEach((bytes, i) => (pointers[i] = BigInt(ptr(bytes))));
  return { pointers, strings };
}
