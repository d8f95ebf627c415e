// Calls a graph model: node run_tensorflowjs.js MODEL_DIR B H W IN OUT; IN is float32 pixels, then int32 labels.
const fs = require('fs');
const tf = require('@tensorflow/tfjs');

async function main([folder, batch, height, width, input, output]) {
  const {modelTopology, signature, weightsManifest} = JSON.parse(fs.readFileSync(`${folder}/model.json`));
  const weights = Buffer.concat(weightsManifest.flatMap(({paths}) => paths.map(path => fs.readFileSync(`${folder}/${path}`))));
  const model = await tf.loadGraphModel(tf.io.fromMemory({
    modelTopology, signature, weightSpecs: weightsManifest.flatMap(group => group.weights),
    weightData: new Uint8Array(weights).buffer,
  }));
  const shape = [batch, height, width, 3].map(Number), size = shape.reduce((a, b) => a * b);
  const data = new Uint8Array(fs.readFileSync(input)).buffer;
  const image = tf.tensor(new Float32Array(data, 0, size), shape);
  const label = tf.tensor(new Int32Array(data, 4 * size), [shape[0]], 'int32');
  // executeAsync, not predict: the order of width and height is a branch.
  const probability = await model.executeAsync({image, label});
  fs.writeFileSync(output, new Uint8Array(probability.dataSync().buffer));
}

main(process.argv.slice(2)).catch(error => { console.error(error); process.exit(1); });
