// How this folder asks issuers over HTTP: one bounded request at a time, no redirect followed by itself. The waypoint brings the real
// one (http-fetch.ts, or one that goes through the mesh), tests a fake.

import type { Result } from "../../core/result.ts";

export interface IssuerRequest {
  readonly method: "GET" | "POST";
  /** http or https. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | null;
  readonly timeoutMs: number;
  /** A longer answer is cut off and is a fault. */
  readonly bodyBytesMax: number;
  /** Refuse to connect to private addresses, whatever the name resolves to: the URL was not written by an operator. */
  readonly publicOnly: boolean;
  readonly signal: AbortSignal;
}

export interface IssuerResponse {
  readonly status: number;
  readonly location: string | null;
  readonly cacheControl: string | null;
  readonly body: string;
}

/** The fault says what was asked, of whom, and what was seen. */
export type FetchPort = (request: IssuerRequest) => Promise<Result<IssuerResponse, string>>;
