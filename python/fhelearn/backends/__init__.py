"""Back ends execute integer programs; none of them knows floats or models."""
