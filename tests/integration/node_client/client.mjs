// Asks for a chat and a response, whole and streamed, and prints what came as one line of JSON.
import OpenAI from "openai";

const model = process.env.MODEL;
const client = new OpenAI({ maxRetries: 0 });
const messages = [{ role: "user", content: "Tell me a story about a river, please." }];

const whole = await client.chat.completions.create({ model, messages, max_tokens: 7 });
const stream = await client.chat.completions.create({
  model,
  messages,
  max_tokens: 7,
  stream: true,
  stream_options: { include_usage: true },
});
let text = "";
let usage = null;
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
const response = await client.responses.create({ model, input: "Hello", max_output_tokens: 7 });
let completed = null;
for await (const event of await client.responses.create({ model, input: "Hello", max_output_tokens: 7, stream: true })) {
  if (event.type === "response.completed") completed = event.response.usage;
}
let refused = null;
try {
  await client.chat.completions.create({ model: "nope", messages });
} catch (error) {
  refused = [error.constructor.name, error.status, error.code];
}
console.log(
  JSON.stringify({
    whole: whole.usage.completion_tokens,
    streamed: usage.completion_tokens,
    text: text.length > 0,
    response: response.usage.output_tokens,
    completed: completed.output_tokens,
    refused,
  }),
);
