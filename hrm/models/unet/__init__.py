"""The parts of the ACT U-Net: encoder, recurrent core, value functions, decoders."""
