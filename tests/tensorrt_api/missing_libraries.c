/* What NVIDIA's published Python binding of TensorRT asks of libnvinfer, libnvinfer_plugin and
 * libnvonnxparser: with these ten functions the binding can be imported on a machine that has
 * neither TensorRT nor a GPU, and its names and signatures read. Every function that would make
 * something says that it made nothing, so nothing can be built or run through this library.
 *
 * The list is what `nm -D --undefined-only` says of the bindings 10.3.0 to 11.4.0.
 */
#include <stdint.h>

void *createInferBuilder_INTERNAL(void *logger, int32_t version) { return 0; }
void *createInferRuntime_INTERNAL(void *logger, int32_t version) { return 0; }
void *createInferRefitter_INTERNAL(void *engine, void *logger, int32_t version) { return 0; }
void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int32_t version)
{
    return 0;
}
int getNvOnnxParserVersion(void) { return 0; }
int32_t getInferLibVersion(void) { return 0; }
void *getBuilderPluginRegistry(int32_t capability) { return 0; }
void *getPluginRegistry(void) { return 0; }
_Bool initLibNvInferPlugins(void *logger, const char *name_space) { return 0; }
