/* A C program on TensorFlow's library: c_program EXPORT IMAGE_OP LABEL_OP OUTPUT_OP OUTPUT_INDEX B H W IN OUT
   reads B*H*W*3 float32 and B int32 from IN and writes B*H*W float32, the probabilities, to OUT. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

/* What TensorFlow Serving calls when it starts: tensorflow::DisableXlaCompilation(). */
void _ZN10tensorflow21DisableXlaCompilationEv(void);

static void check(TF_Status* status) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s\n", TF_Message(status));
  exit(1);
}

static TF_Output port(TF_Graph* graph, const char* name, int index) {
  TF_Output output = {TF_GraphOperationByName(graph, name), index};
  if (output.oper == NULL) {
    fprintf(stderr, "no operation %s\n", name);
    exit(1);
  }
  return output;
}

static TF_Tensor* read_tensor(FILE* file, TF_DataType type, const int64_t* dims, int rank) {
  size_t size = TF_DataTypeSize(type);
  for (int i = 0; i < rank; ++i) size *= (size_t)dims[i];
  TF_Tensor* tensor = TF_AllocateTensor(type, dims, rank, size);
  if (fread(TF_TensorData(tensor), 1, size, file) != size) exit(2);
  return tensor;
}

int main(int argc, char** argv) {
  if (argc != 11) return 2;
  _ZN10tensorflow21DisableXlaCompilationEv();
  int64_t dims[4] = {atoll(argv[6]), atoll(argv[7]), atoll(argv[8]), 3};
  FILE* in = fopen(argv[9], "rb");
  if (in == NULL) return 2;
  TF_Tensor* inputs[2] = {read_tensor(in, TF_FLOAT, dims, 4), read_tensor(in, TF_INT32, dims, 1)};
  fclose(in);

  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* options = TF_NewSessionOptions();
  TF_Graph* graph = TF_NewGraph();
  const char* tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status);
  TF_Output feeds[2] = {port(graph, argv[2], 0), port(graph, argv[3], 0)};
  TF_Output fetch = port(graph, argv[4], atoi(argv[5]));
  TF_Tensor* output = NULL;
  TF_SessionRun(session, NULL, feeds, inputs, 2, &fetch, &output, 1, NULL, 0, NULL, status);
  check(status);
  FILE* out = fopen(argv[10], "wb");
  if (out == NULL || fwrite(TF_TensorData(output), 1, TF_TensorByteSize(output), out) != TF_TensorByteSize(output))
    return 2;
  fclose(out);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  return 0;
}
