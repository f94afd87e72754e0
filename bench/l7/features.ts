// What a proxy is asked to do in one series of runs. Both proxies read the same description.

export interface Features {
  /** HTTP/2 over mutual TLS on both sides: tunnels (HBONE) from the client, TLS to the server. */
  readonly mtls: boolean;
  readonly jwt: boolean;
  /** Rules by path; the request meets the one in the middle. 0: one rule for everything. */
  readonly routes: number;
  /** A rule that denies by a header, and one that allows by method and path. */
  readonly policy: boolean;
  readonly log: boolean;
  /** Spans of one trace in a hundred, by OTLP. */
  readonly trace: boolean;
}

const NONE: Features = { mtls: false, jwt: false, routes: 0, policy: false, log: false, trace: false };

export const PLAIN = NONE;
/** Each measured with HTTP/2 and 64 connections, beside `h2_64`. */
export const SERIES: Readonly<Record<string, Features>> = {
  routes_10: { ...NONE, routes: 10 },
  routes_1000: { ...NONE, routes: 1000 },
  policy: { ...NONE, policy: true },
  jwt: { ...NONE, jwt: true },
  log: { ...NONE, log: true },
  trace: { ...NONE, trace: true },
  mtls: { ...NONE, mtls: true },
  all: { mtls: true, jwt: true, routes: 10, policy: true, log: true, trace: true },
};

export const routePath = (index: number): string => `/route-${index}`;
export const requestPath = ({ routes }: Features): string => (routes === 0 ? "/" : routePath(routes >> 1));

export const ISSUER = "https://issuer.example";
export const TRACES_PATH = "/v1/traces";
export const TRACE_PERCENT = 1;
export const DENIED_HEADER = "x-denied";

/** In the certificate of the server. */
export const SERVER_NAME = "web.bench";

/** Certificate with its chain, and key: files. */
export interface Identity {
  readonly chain: string;
  readonly key: string;
}

/** Files and texts that both sides are given. */
export interface Materials {
  readonly directory: string;
  /** Of `ISSUER`. */
  readonly jwks: string;
  readonly token: string;
  /** Above the authority that signed all of them. */
  readonly root: string;
  readonly authority: { readonly certificate: string; readonly key: string };
  readonly client: Identity;
  readonly waypoint: Identity;
  readonly server: Identity;
}
