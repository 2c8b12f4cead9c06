"""Files whose weights were rounded to float16 or quantized to int8: are they exactly that, and what does it cost?"""
