"""Where and in which number format models run: devices, precision, memory."""
