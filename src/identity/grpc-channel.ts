// A channel to a control plane (its CA, its configuration) over gRPC and TLS. Token and root are files that others rotate, so they are
// looked at again for each use. This file brings HTTP/2 into memory: import it only where an address is configured.

import { readFileSync, statSync } from "node:fs";
import { err, ok, type Result } from "../core/result.ts";
import { CheckedSessions } from "./checked-sessions.ts";
import { GrpcCall, type GrpcCallOptions } from "./grpc-call.ts";

export type ChannelToken = { readonly kind: "file"; readonly path: string } | { readonly kind: "literal"; readonly value: string } | { readonly kind: "none" };

export interface GrpcChannelOptions {
  /** `host:port` or `https://host:port`. Only TLS is spoken. */
  readonly address: string;
  /** Name that the server's certificate must carry when it is not the address. */
  readonly serverName: string | null;
  /** PEM file, or PEM text, of the roots that sign the server's certificate; null trusts the system's. */
  readonly rootCa: string | null;
  readonly token: ChannelToken;
  /** Sent as `clusterid`; "" for none. */
  readonly clusterId: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly responseBytesMax: number;
}

export interface PreparedCall {
  /** Begins a call, with the headers that say who we are. */
  readonly call: (options: Omit<GrpcCallOptions, "headers" | "messageBytesMax">) => GrpcCall;
  /** Makes the connection where there is none. Null when it stands, else what was seen. */
  readonly connect: (timeoutMs: number) => Promise<string | null>;
}

interface Open {
  /** What the root looked like when the channel was made. */
  readonly rootStamp: string;
  readonly sessions: CheckedSessions;
}

export class GrpcChannel {
  readonly #options: GrpcChannelOptions;
  #open: Open | null = null;

  constructor(options: GrpcChannelOptions) {
    this.#options = options;
  }

  /** What a call needs now. The error says what cannot be read, or is not as it should be. */
  prepare(): Result<PreparedCall, string> {
    const { token, clusterId, headers, responseBytesMax } = this.#options;
    try {
      const bearer = token.kind === "none" ? null : token.kind === "literal" ? token.value : readFileSync(token.path, "utf8").trim();
      if (bearer !== null && !/^[\x21-\x7e]+$/.test(bearer)) return err(`the token ${token.kind === "file" ? `in ${token.path} ` : ""}is empty or not printable`);
      const { sessions } = this.#current();
      const sent = { ...headers, ...(clusterId === "" ? {} : { clusterid: clusterId }), ...(bearer === null ? {} : { authorization: `Bearer ${bearer}` }) };
      return ok({
        call: (options) => new GrpcCall(sessions, { ...options, headers: sent, messageBytesMax: responseBytesMax }),
        connect: (timeoutMs) => sessions.connect(timeoutMs),
      });
    } catch (cause) {
      return err(cause instanceof Error ? cause.message : String(cause));
    }
  }

  destroy(): void {
    this.#open?.sessions.abort();
    this.#open = null;
  }

  #current(): Open {
    const { rootCa } = this.#options;
    const literal = rootCa === null || rootCa.includes("-----BEGIN");
    const stats = literal ? null : statSync(rootCa);
    const rootStamp = stats === null ? "" : `${stats.ino} ${stats.mtimeMs} ${stats.size}`;
    if (this.#open !== null && this.#open.rootStamp === rootStamp) return this.#open;
    const previous = this.#open;
    this.#open = this.#connect(rootStamp, literal ? rootCa : readFileSync(rootCa, "utf8"));
    previous?.sessions.abort();
    return this.#open;
  }

  #connect(rootStamp: string, rootPem: string | null): Open {
    const { address, serverName } = this.#options;
    const baseUrl = address.includes("://") ? address : `https://${address}`;
    if (!baseUrl.startsWith("https://")) throw new Error(`the address is ${baseUrl}; only TLS is spoken to a control plane`);
    const tls = { minVersion: "TLSv1.2" as const, ...(rootPem === null ? {} : { ca: rootPem }), ...(serverName === null ? {} : { servername: serverName }) };
    return { rootStamp, sessions: new CheckedSessions(baseUrl, tls) };
  }
}
