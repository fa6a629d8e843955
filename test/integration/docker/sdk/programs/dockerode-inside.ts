/** Runs in a container of a tenant that has /var/run/docker.sock: dockerode, unmodified. Prints one line of JSON. */
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import Dockerode from 'dockerode';
import * as z from 'zod';

const SAID = 'through exec\n';

const eventSchema = z.object({ Action: z.string() });
const ranSchema = z.tuple([
  z.object({ StatusCode: z.number() }),
  z.custom<Dockerode.Container>((value) => typeof value === 'object'),
]);

const docker = new Dockerode();
const ping = String(await docker.ping());
const [image] = await docker.listImages({ filters: { reference: ['bb'] } });

const seen: string[] = [];
const events = await docker.getEvents({ filters: { type: ['container'], event: ['create', 'start', 'die', 'destroy'] } });
events.on('data', (chunk: Buffer) => {
  for (const line of chunk.toString().trim().split('\n')) {
    seen.push(eventSchema.parse(JSON.parse(line)).Action);
  }
});
const output = new PassThrough();
const command = ['sh', '-c', 'echo from inside; exit 3'];
const [result, ran] = ranSchema.parse(await docker.run('bb', command, [output, new PassThrough()], { Tty: false }));
await ran.remove();
while (!seen.includes('destroy')) await delay(50);

const container = await docker.createContainer({ Image: 'bb', Cmd: ['sleep', '1000'] });
await container.start();
const exec = await container.exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true });
const stream = await exec.start({ hijack: true, stdin: true });
const echoed = new PassThrough();
stream.once('end', () => echoed.end());
docker.modem.demuxStream(stream, echoed, echoed);
stream.end(SAID);

const reading = await container.exec({ Cmd: ['sh', '-c', 'read line; echo $line'], AttachStdin: true, AttachStdout: true });
const unhijacked = await reading.start({ stdin: true });
const read = new PassThrough();
unhijacked.once('end', () => read.end());
docker.modem.demuxStream(unhijacked, read, read);
unhijacked.write(SAID);
const report = {
  ping,
  image: image?.RepoTags?.[0],
  exitCode: result.StatusCode,
  output: await text(output),
  echoed: await text(echoed),
  read: await text(read),
  events: seen.slice(0, 4),
};
await container.remove({ force: true });
process.stdout.write(`${JSON.stringify(report)}\n`, () => {
  // eslint-disable-next-line unicorn/no-process-exit -- the stream of events is still open.
  process.exit(0);
});
