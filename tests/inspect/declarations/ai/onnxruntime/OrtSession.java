package ai.onnxruntime;

import java.util.Map;
import java.util.Optional;

public abstract class OrtSession implements AutoCloseable {
    public static class SessionOptions {}

    public abstract static class Result implements AutoCloseable {
        public abstract Optional<OnnxValue> get(String name);

        @Override
        public abstract void close();
    }

    public abstract Result run(Map<String, OnnxTensor> inputs) throws OrtException;

    @Override
    public abstract void close() throws OrtException;
}
