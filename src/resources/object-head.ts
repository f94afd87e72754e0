// Namespace, name and the like of an object of the API that may be anything else: read without a schema.

export interface ObjectHead {
  /** "" for an object without one. */
  readonly namespace: string;
  readonly name: string;
}

export const headOf = (object: Readonly<Record<string, unknown>>): ObjectHead => ({ namespace: metadataText(object, "namespace"), name: metadataText(object, "name") });

/** A text of the object's metadata; "" for one that is not there, or is no text. */
export function metadataText({ metadata }: Readonly<Record<string, unknown>>, field: string): string {
  const found: unknown = metadata !== null && typeof metadata === "object" ? Reflect.get(metadata, field) : undefined;
  return typeof found === "string" ? found : "";
}
