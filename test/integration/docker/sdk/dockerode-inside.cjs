/** Runs in a container of a tenant that has /var/run/docker.sock: dockerode, unmodified. Prints one line of JSON. */
'use strict';
const { PassThrough } = require('node:stream');
const { text } = require('node:stream/consumers');
const Dockerode = require('dockerode');

const SAID = 'through exec\n';

async function demuxed(docker, stream) {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  stream.once('end', () => stdout.end());
  docker.modem.demuxStream(stream, stdout, stderr);
  return await text(stdout);
}

async function main() {
  const docker = new Dockerode();
  const ping = String(await docker.ping());
  const [image] = await docker.listImages({ filters: { reference: ['bb'] } });

  const seen = [];
  const events = await docker.getEvents({ filters: { type: ['container'], event: ['create', 'start', 'die', 'destroy'] } });
  events.on('data', (chunk) => {
    for (const line of chunk.toString().trim().split('\n')) seen.push(JSON.parse(line).Action);
  });
  const output = new PassThrough();
  const command = ['sh', '-c', 'echo from inside; exit 3'];
  const [result, ran] = await docker.run('bb', command, [output, new PassThrough()], { Tty: false });
  await ran.remove();
  while (!seen.includes('destroy')) await new Promise((resolve) => setTimeout(resolve, 50));
  events.destroy();

  const container = await docker.createContainer({ Image: 'bb', Cmd: ['sleep', '1000'] });
  await container.start();
  const exec = await container.exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true });
  const stream = await exec.start({ hijack: true, stdin: true });
  const echoed = demuxed(docker, stream);
  stream.end(SAID);
  const report = {
    ping,
    image: image.RepoTags[0],
    exitCode: result.StatusCode,
    output: await text(output),
    echoed: await echoed,
    events: seen,
  };
  await container.remove({ force: true });
  process.stdout.write(`${JSON.stringify(report)}\n`);
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
