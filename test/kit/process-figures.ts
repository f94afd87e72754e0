// What a running process tells of itself: memory, and its metrics.

import { readFileSync } from "node:fs";

/** Memory that it holds now. Throws when it is gone. */
export function residentBytes(pid: number): number {
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  if (kilobytes === undefined) throw new Error(`process ${pid} holds no memory: it has ended`);
  return Number(kilobytes) * 1024;
}

/** @param text in the Prometheus form. @returns the sum of a metric's samples that carry these labels; 0 where there are none. */
export function sumOfSamples(text: string, name: string, labels: Readonly<Record<string, string>> = {}): number {
  const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  return text.split("\n")
    .filter((sample) => (sample.startsWith(`${name}{`) || sample.startsWith(`${name} `)) && wanted.every((label) => sample.includes(label)))
    .reduce((sum, sample) => sum + Number(sample.slice(sample.lastIndexOf(" ") + 1)), 0);
}
