// Asks the engine of @cloud-copilot/iam-simulate (AGPL-3.0) what it makes of a key policy and a
// request. One JSON object a line in, one JSON string a line out: Allowed, ImplicitlyDenied,
// ExplicitlyDenied, or "error: …". The package's own front doors are not used: one drops condition
// keys that its data does not list for an action (these tests ask about operators, not about data),
// the other fails at every resource policy in this version.
import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'

const folder = process.argv[2]
const require = createRequire(folder + '/')
const inside = (file) => require(`${folder}/node_modules/@cloud-copilot/iam-simulate/dist/cjs/${file}.js`)
const { authorize } = inside('core_engine/CoreSimulatorEngine')
const { AwsRequestImpl } = inside('request/request')
const { RequestContextImpl } = inside('requestContext')
const { DiscoveryContextKeyConstraints } = inside('context_keys/discoveryContextKeyConstraints')
const { loadPolicy } = require('@cloud-copilot/iam-policy')

function decide({ policy, principal, action, resource, account, context, iam }) {
  const identity = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: iam, Resource: '*' }] }
  const answer = authorize({
    request: new AwsRequestImpl(principal, { resource, accountId: account }, action, new RequestContextImpl(context)),
    sessionPolicy: undefined,
    identityPolicies: iam.length ? [loadPolicy(identity, { name: 'iam' })] : [],
    serviceControlPolicies: [],
    resourceControlPolicies: [],
    resourcePolicy: loadPolicy(policy, { name: 'key' }),
    permissionBoundaries: undefined,
    vpcEndpointPolicies: undefined,
    simulationParameters: {
      simulationMode: 'Strict',
      discoveryContextKeyConstraints: new DiscoveryContextKeyConstraints([])
    },
    serviceSettings: { s3: { blockPublicAccess: false } }
  })
  return answer.result
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer
  try {
    answer = decide(JSON.parse(line))
  } catch (error) {
    answer = 'error: ' + error.message
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
