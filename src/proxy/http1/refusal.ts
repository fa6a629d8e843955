/**
 * Why a message is refused: what the codec returns where it cannot go on, as negative numbers beside offsets and states.
 *
 * Statuses are those for requests (RFC 9112 §2.2, §3, §6.3; RFC 9110 §15.5, RFC 6585 §5). A response that is refused is a 502, whatever
 * its fault.
 */

export interface Refusal {
  readonly status: number;
  readonly reason: string;
}

export const REFUSED = {
  requestLine: -1,
  method: -2,
  target: -3,
  targetForm: -4,
  version: -5,
  startLineTooLong: -6,
  statusLine: -7,
  fieldName: -8,
  fieldValue: -9,
  lineEnd: -10,
  fieldLineTooLong: -11,
  headTooLong: -12,
  fieldsTooMany: -13,
  hostMissing: -14,
  hostRepeated: -15,
  hostMalformed: -16,
  hostDisagrees: -17,
  connectionMalformed: -18,
  emptyLines: -19,
  foldedLine: -20,
  lengthMalformed: -21,
  lengthRepeated: -22,
  lengthTooLarge: -23,
  lengthWithEncoding: -24,
  encodingMalformed: -25,
  encodingUnknown: -26,
  encodingInOldVersion: -27,
  bodyNotAllowed: -28,
  switchUnasked: -29,
  chunkSize: -30,
  chunkSizeTooLarge: -31,
  chunkExtension: -32,
  chunkExtensionTooLong: -33,
  chunkEnd: -34,
  trailerMalformed: -35,
  trailerForbidden: -36,
  trailersTooLong: -37,
  expectation: -38,
  misdirected: -39,
  bodyTooLong: -40,
  overloaded: -41,
} as const;

const REFUSALS: ReadonlyMap<number, Refusal> = new Map([
  [REFUSED.requestLine, refusal(400, 'the request line is malformed')],
  [REFUSED.method, refusal(501, 'the method is not one that can be served')],
  [REFUSED.target, refusal(400, 'the request target has an octet that may not be there')],
  [REFUSED.targetForm, refusal(400, 'the request target has not the form that the method asks for')],
  [REFUSED.version, refusal(505, 'the HTTP version is not 1.0 or 1.1')],
  [REFUSED.startLineTooLong, refusal(414, 'the request line is too long')],
  [REFUSED.statusLine, refusal(400, 'the status line is malformed')],
  [REFUSED.fieldName, refusal(400, 'a field name is not a token followed by a colon')],
  [REFUSED.fieldValue, refusal(400, 'a field value has a control octet')],
  [REFUSED.lineEnd, refusal(400, 'a line does not end with CRLF')],
  [REFUSED.fieldLineTooLong, refusal(431, 'a field line is too long')],
  [REFUSED.headTooLong, refusal(431, 'the head is too long')],
  [REFUSED.fieldsTooMany, refusal(431, 'the head has too many fields')],
  [REFUSED.hostMissing, refusal(400, 'Host is missing')],
  [REFUSED.hostRepeated, refusal(400, 'Host is repeated')],
  [REFUSED.hostMalformed, refusal(400, 'Host is not a host with an optional port')],
  [REFUSED.hostDisagrees, refusal(400, 'Host and the request target name different authorities')],
  [REFUSED.connectionMalformed, refusal(400, 'Connection is not a short list of tokens')],
  [REFUSED.emptyLines, refusal(400, 'more than one empty line before the request line')],
  [REFUSED.foldedLine, refusal(400, 'a line begins with white space')],
  [REFUSED.lengthMalformed, refusal(400, 'Content-Length is not a number')],
  [REFUSED.lengthRepeated, refusal(400, 'Content-Length is repeated')],
  [REFUSED.lengthTooLarge, refusal(413, 'Content-Length is too large')],
  [REFUSED.lengthWithEncoding, refusal(400, 'both Content-Length and Transfer-Encoding')],
  [REFUSED.encodingMalformed, refusal(400, 'Transfer-Encoding does not end with the one and only chunked')],
  [REFUSED.encodingUnknown, refusal(501, 'Transfer-Encoding has a coding other than chunked')],
  [REFUSED.encodingInOldVersion, refusal(400, 'Transfer-Encoding in HTTP/1.0')],
  [REFUSED.bodyNotAllowed, refusal(400, 'a body where none may be')],
  [REFUSED.switchUnasked, refusal(400, 'a switch of protocols that nobody asked for')],
  [REFUSED.chunkSize, refusal(400, 'a chunk size is malformed')],
  [REFUSED.chunkSizeTooLarge, refusal(413, 'a chunk size is too large')],
  [REFUSED.chunkExtension, refusal(400, 'a chunk extension is malformed')],
  [REFUSED.chunkExtensionTooLong, refusal(400, 'chunk extensions are too long')],
  [REFUSED.chunkEnd, refusal(400, 'a chunk does not end with CRLF')],
  [REFUSED.trailerMalformed, refusal(400, 'a trailer is malformed')],
  [REFUSED.trailerForbidden, refusal(400, 'a trailer that may only be a header')],
  [REFUSED.trailersTooLong, refusal(431, 'the trailers are too many or too long')],
  [REFUSED.expectation, refusal(417, 'Expect is not 100-continue')],
  [REFUSED.misdirected, refusal(421, 'the request target names another scheme than the connection has')],
  [REFUSED.bodyTooLong, refusal(413, 'the body is too long')],
  [REFUSED.overloaded, refusal(503, 'too many requests are half sent')],
]);

const UNKNOWN: Refusal = { status: 400, reason: 'the message is malformed' };

/** What a negative result of the codec means. */
export function refusalOf(code: number): Refusal {
  return REFUSALS.get(code) ?? UNKNOWN;
}

function refusal(status: number, reason: string): Refusal {
  return { status, reason };
}
