// The form of a fixture in test/vectors/releases: what one release says to others of its kind.

export interface Recorded {
  /** What a control plane tells. `json`: the text of a record of ours, its members in the order in which they are written; `base64`: a message. */
  readonly resources: readonly ({ readonly typeUrl: string; readonly name: string } & ({ readonly json: unknown } | { readonly base64: string }))[];
  /** What clients ask, stream by stream: DeltaDiscoveryRequest messages, in base64. */
  readonly clients: readonly { readonly view: { readonly kind: "node"; readonly node: string } | { readonly kind: "waypoint"; readonly gateway: string }; readonly requests: readonly string[] }[];
  /** What an agent keeps on disk of it, in base64. */
  readonly resourceLog: string;
  /** What CNI plugin and agent say to each other. */
  readonly plugin: { readonly requests: readonly string[]; readonly answers: readonly string[] };
}
