// A provider for a test: HTTP on loopback, two clients, one person who is asked nothing. POST /test/rotate makes a new
// signing key under another id and forgets the one before, with everybody who was signed in.
import http from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import Provider from 'oidc-provider';

const [port, redirect, secret] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

function key() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };
}

function make() {
  const provider = new Provider(issuer, {
    clients: ['awry', 'other'].map((client_id) => ({
      client_id, client_secret: secret, redirect_uris: [redirect], response_types: ['code'],
      grant_types: ['authorization_code'],
    })),
    jwks: { keys: [key()] },
    claims: { openid: ['sub'], email: ['email'], profile: ['groups'] },
    pkce: { required: () => true },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    cookies: { keys: ['test'] },
    async findAccount(_, id) {
      return { accountId: id, claims: async () => ({ sub: id, email: 'anna@example.org', groups: ['security'] }) };
    },
  });
  return provider;
}

let provider = make();
http.createServer(async (request, response) => {
  if (request.method === 'POST' && request.url === '/test/rotate') {
    provider = make();
    response.end('ok');
    return;
  }
  const interaction = request.url.match(/^\/interaction\//);
  if (!interaction) {
    provider.callback()(request, response);
    return;
  }
  const { prompt, params } = await provider.interactionDetails(request, response);
  if (prompt.name === 'login') {
    await provider.interactionFinished(request, response, { login: { accountId: 'anna-1' } });
    return;
  }
  const grant = new provider.Grant({ accountId: 'anna-1', clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const consent = { grantId: await grant.save() };
  await provider.interactionFinished(request, response, { consent }, { mergeWithLastSubmission: true });
}).listen(Number(port), '127.0.0.1', () => console.log('listening'));
