/** What operators may write of header fields: names, and values that can be sent. */

/** RFC 9110 §5.6.2. */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}$/;
/** Visible ASCII, with blanks and tabs inside. */
const VALUE = /^[\u0021-\u007e](?:[\u0020-\u007e\t]*[\u0021-\u007e])?$/;

/** Also of methods. */
export function isToken(text: string): boolean {
  return TOKEN.test(text);
}

export function isFieldValue(text: string, lengthMax: number): boolean {
  return text.length <= lengthMax && VALUE.test(text);
}
