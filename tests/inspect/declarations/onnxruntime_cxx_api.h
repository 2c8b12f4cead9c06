// What the programs of `inspect --code cpp` use of ONNX Runtime's header of this name, without its definitions.
#pragma once
#include <cstddef>
#include <cstdint>

#define ORT_TSTR(text) text
enum OrtLoggingLevel { ORT_LOGGING_LEVEL_WARNING };
enum OrtAllocatorType { OrtArenaAllocator };
enum OrtMemType { OrtMemTypeDefault };

#include <vector>

namespace Ort {
struct Env {
  Env(OrtLoggingLevel, const char*);
};
struct SessionOptions {};
struct RunOptions {
  explicit RunOptions(std::nullptr_t);
};
struct MemoryInfo {
  static MemoryInfo CreateCpu(OrtAllocatorType, OrtMemType);
};
struct TensorTypeAndShapeInfo {
  std::size_t GetElementCount() const;
};
struct Value {
  Value(Value&&) = default;
  Value& operator=(Value&&) = default;
  Value(const Value&) = delete;
  template <typename T>
  static Value CreateTensor(const MemoryInfo&, T*, std::size_t, const std::int64_t*, std::size_t);
  template <typename T>
  const T* GetTensorData() const;
  TensorTypeAndShapeInfo GetTensorTypeAndShapeInfo() const;
};
struct Session {
  Session(const Env&, const char*, const SessionOptions&);
  std::vector<Value> Run(const RunOptions&, const char* const*, const Value*, std::size_t, const char* const*, std::size_t);
};
}  // namespace Ort
