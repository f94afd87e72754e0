// What a service with several endpoints is told about them, in words of neither proxy, and what is found out about how it treats them.

import type { Fleet } from "./fleet.ts";

export type HashKey = { readonly header: string } | { readonly cookie: string; readonly ttlS?: number } | { readonly query: string } | { readonly sourceIp: true };

export type Balancing = "round robin" | "random" | "least request" | { readonly table: "ring" | "maglev"; readonly key: HashKey };

export interface FleetSpec {
  readonly endpoints: number;
  readonly balancing: Balancing;
  /** At HEALTH_PATH, or whether it takes connections. */
  readonly healthCheck?: "http" | "tcp";
  readonly ejection?: {
    /** 0 for never. */
    readonly errors: number;
    readonly gatewayErrors?: number;
    readonly successRate?: { readonly requests: number; readonly hosts: number; readonly stdevs: number };
    readonly baseMs: number;
    readonly largestPercent: number;
    /** Below this share that may be used all are. */
    readonly panicPercent?: number;
  };
}

export const HEALTH_PATH = "/health";
/** Also the time for an answer: no endpoint of a busy machine may miss it as often as the threshold has it. */
export const HEALTH_INTERVAL_MS = 500;
export const HEALTH_THRESHOLD = 3;
export const EJECTION_INTERVAL_MS = 250;

export interface Answer {
  readonly status: number;
  /** Of the endpoint, from 0; null where the proxy answered. */
  readonly endpoint: number | null;
  readonly setCookie: string | null;
}

export interface World {
  readonly fleet: Fleet;
  ask(request?: AskOptions): Promise<Answer>;
}

export interface AskOptions {
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** From this loopback address, over a connection of its own. */
  readonly from?: string;
}

/** What was found out, by a name that reads as a sentence with its value; the same each time. */
export type Facts = Readonly<Record<string, string | number | boolean>>;

export interface Scenario {
  readonly name: string;
  readonly spec: FleetSpec;
  readonly find: (world: World) => Promise<Facts>;
}
