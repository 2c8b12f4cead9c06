package ai.onnxruntime;

import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;

/** What the programs of `inspect --code java` use of it. */
public abstract class OnnxTensor implements OnnxValue {
    public static OnnxTensor createTensor(OrtEnvironment environment, FloatBuffer data, long[] shape) throws OrtException {
        throw new OrtException();
    }

    public static OnnxTensor createTensor(OrtEnvironment environment, DoubleBuffer data, long[] shape) throws OrtException {
        throw new OrtException();
    }

    public static OnnxTensor createTensor(OrtEnvironment environment, IntBuffer data, long[] shape) throws OrtException {
        throw new OrtException();
    }

    public static OnnxTensor createTensor(OrtEnvironment environment, LongBuffer data, long[] shape) throws OrtException {
        throw new OrtException();
    }

    public abstract FloatBuffer getFloatBuffer();

    public abstract DoubleBuffer getDoubleBuffer();

    public abstract IntBuffer getIntBuffer();

    public abstract LongBuffer getLongBuffer();
}
