#include <policygrad/version.h>

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

uint32_t pgrad_version(void)
{
    return PGRAD_VERSION_MAJOR << 16 | PGRAD_VERSION_MINOR << 8 | PGRAD_VERSION_PATCH;
}

const char *pgrad_version_string(void)
{
    return TEXT(PGRAD_VERSION_MAJOR) "." TEXT(PGRAD_VERSION_MINOR) "." TEXT(PGRAD_VERSION_PATCH);
}
