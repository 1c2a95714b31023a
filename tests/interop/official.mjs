// The peer that uses the official Node SDK; see ours.py. It has no namespaces.
import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'
import { registerWorker, TriggerAction } from 'iii-sdk'
import { ChannelWriter } from 'iii-sdk/channel'
import { createChannel } from 'iii-sdk/helpers'

// Standard output is for answers; the SDK logs there.
const say = (answer) => process.stdout.write(JSON.stringify(answer) + '\n')
console.debug = console.log = console.info = console.error

class Summary {
  size = 0
  digest = createHash('sha256')
  texts = []

  add(item) {
    if (typeof item === 'string') {
      this.texts.push(item)
    } else {
      this.size += item.length
      this.digest.update(item)
    }
  }

  done() {
    return { size: this.size, sha256: this.digest.digest('hex'), texts: this.texts, complete: null }
  }
}

function* items(script, seed) {
  const total = script.reduce((sum, item) => (typeof item === 'string' ? sum : sum + item), 0)
  const data = total
    ? createHash('shake128', { outputLength: total }).update(String(seed)).digest()
    : Buffer.alloc(0)
  let start = 0
  for (const item of script) {
    if (typeof item === 'string') {
      yield item
    } else {
      yield data.subarray(start, start + item)
      start += item
    }
  }
}

async function send(writer, script, seed, made) {
  for (const item of items(script, seed)) {
    if (typeof item === 'string') {
      writer.sendMessage(item)
    } else {
      await new Promise((resolve, reject) => {
        writer.stream.write(item, (error) => (error ? reject(error) : resolve()))
      })
    }
    made.add(item)
  }
}

async function write(writer, script, seed) {
  const made = new Summary()
  await send(writer, script, seed, made)
  await new Promise((resolve, reject) => writer.stream.on('error', reject).end(resolve))
  return made.done()
}

async function read(reader) {
  const made = new Summary()
  reader.onMessage((text) => made.add(text))
  for await (const chunk of reader.stream) made.add(chunk)
  return made.done()
}

async function relay({ reader, writer }) {
  let count = 0
  for await (const chunk of reader.stream) {
    await new Promise((resolve) => writer.stream.write(chunk, resolve))
    count += chunk.length
  }
  await new Promise((resolve) => writer.stream.end(resolve))
  return count
}

const [url, prefix] = process.argv.slice(2)
const worker = registerWorker(url)

// A queue of what has come and of who waits for it.
const notes = []
const waiting = []
const note = (data) => {
  const waiter = waiting.shift()
  if (waiter) waiter(data)
  else notes.push(data)
}
const noted = () => (notes.length ? notes.shift() : new Promise((resolve) => waiting.push(resolve)))

const functions = {
  read: (data) => read(data.deep[0].reader),
  write: (data) => write(data.deep[0].writer, data.script, data.seed),
  relay,
  echo: (data) => data.value,
  nothing: () => undefined,
  fail: ({ message }) => {
    throw new Error(message)
  },
  slow: ({ seconds }) => new Promise((resolve) => setTimeout(resolve, seconds * 1000, null)),
  meta: (_, metadata) => metadata,
  note,
  noted,
  where: () => 'default',
  // References in payloads are ends by now, and ends cannot be sent; those in metadata still are references.
  pass_on: ({ to }, metadata) => worker.trigger({ function_id: to, payload: metadata }),
}
for (const [name, handler] of Object.entries(functions)) {
  worker.registerFunction(`${prefix}::${name}`, async (data, metadata) => handler(data, metadata))
}

const commands = {
  async send({ function_id, script, seed }) {
    const channel = await createChannel(worker)
    const call = worker.trigger({ function_id, payload: { deep: [{ reader: channel.readerRef }] } })
    return { wrote: await write(channel.writer, script, seed), read: await call }
  },
  async receive({ function_id, script, seed }) {
    const channel = await createChannel(worker)
    const call = worker.trigger({ function_id, payload: { deep: [{ writer: channel.writerRef }], script, seed } })
    return { read: await read(channel.reader), wrote: await call }
  },
  async call({ request: { timeout_ms, ...request }, void: void_ }) {
    const action = void_ ? { action: TriggerAction.Void() } : {}
    return (await worker.trigger({ timeoutMs: timeout_ms, ...request, ...action })) ?? null
  },
  async die({ ref, script, seed }) {
    await send(new ChannelWriter(url, ref), script, seed, new Summary())
    process.exit(1)
  },
}

// Nothing tells when the engine has taken registrations: this SDK's wait there until it has introduced itself, which it
// does after the first calls.
for (const end = Date.now() + 20_000; ; ) {
  try {
    await worker.trigger({ function_id: `${prefix}::where`, payload: {} })
    break
  } catch (error) {
    if (error.code !== 'function_not_found' || Date.now() > end) throw error
  }
}
say({ ready: true })
for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...command } = JSON.parse(line)
  try {
    say({ result: await commands[name](command) })
  } catch (error) {
    // The SDK puts the code before the message.
    const message = error.message.startsWith(`${error.code}: `) ? error.message.slice(error.code.length + 2) : error.message
    say({ error: { type: error.name, code: error.code ?? null, message } })
  }
}
await worker.shutdown()
process.exit(0)
